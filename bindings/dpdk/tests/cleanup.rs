//! The EAL lives as long as anything made from it, and leaves nothing behind.

use std::path::PathBuf;

use dpdk::{Burst, Eal, Error, Memory, Mempool, MempoolConfig, Port, PortConfig, Queues};

#[test]
fn the_last_user_cleans_up() {
    let prefix = format!("cleanup-test-{}", std::process::id());
    let builder = || Eal::builder("cleanup").file_prefix(&prefix).memory(Memory::NoHuge);
    let eal = builder().memory_mb(32).vdev("net_null5,size=100").init().unwrap();

    let config = MempoolConfig { size: 127, cache: 32, ..MempoolConfig::default() };
    let pool = Mempool::new(&eal, "pool", &config).unwrap();
    let mut port = Port::open(&eal, "net_null5").unwrap();
    let shape = PortConfig { rx_descriptors: 32, tx_descriptors: 32, ..PortConfig::default() };
    port.configure(&shape, &[&pool]).unwrap();
    let Queues { mut rx, mut tx } = port.start().unwrap();

    // Everything the queues need stays, whatever order their makers go in.
    drop(eal);
    drop(pool);
    drop(port);
    let mut burst: Burst = Burst::new();
    for _ in 0..100 {
        assert_eq!(rx[0].recv(&mut burst), 32);
        assert_eq!(burst[0].len(), 100);
        assert_eq!(tx[0].send(&mut burst), 32);
    }
    drop((rx, tx, burst));

    assert!(matches!(builder().init(), Err(Error::EalUsed)));
    let parents = ["/var/run/dpdk", "/tmp/dpdk"].map(PathBuf::from);
    let user = std::env::var_os("XDG_RUNTIME_DIR").map(|d| PathBuf::from(d).join("dpdk"));
    for parent in parents.into_iter().chain(user) {
        assert!(!parent.join(&prefix).exists(), "left behind in {}", parent.display());
    }
    assert_eq!(dpdk::leaked_pools(), 0);
}
