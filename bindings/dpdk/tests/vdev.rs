//! The wrapper over virtual devices: no root, no hugepages, no NIC.
//!
//! The EAL starts once per process, so this is one test of many parts. Each part has a pool of its own,
//! small enough that a leak exhausts it, and closes it, which fails unless every buffer is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dpdk::{
    Burst, Eal, Error, FlowRule, HashKey, HashTable, LcoreRegistration, Mbuf, Memory, Mempool,
    MempoolConfig, Port, PortConfig, Queues, lcore_id, leaked_pools, spawn_worker, spsc,
};

const SMALL: MempoolConfig = MempoolConfig { size: 63, cache: 0, data_room: 2048, socket: None };
const QUEUE: PortConfig = PortConfig {
    rx_queues: 1,
    tx_queues: 1,
    rx_descriptors: 32,
    tx_descriptors: 32,
    mtu: None,
    promiscuous: false,
};

#[test]
fn wrapper() {
    let eal = Eal::builder("vdev-test").memory(Memory::NoHuge).memory_mb(64).init().unwrap();
    assert_eq!(eal.memory(), Memory::NoHuge);
    assert!(matches!(Eal::builder("again").init(), Err(Error::EalUsed)));

    mbuf_room(&eal);
    mbuf_tag_survives_a_ring(&eal);
    burst_owns_its_packets(&eal);
    burst_drain_frees_the_rest(&eal);
    pool_is_all_or_nothing(&eal);
    pool_errors(&eal);
    ring_gives_and_takes(&eal);
    ring_between_threads(&eal);
    hash_table_is_a_map(&eal);
    hash_table_errors(&eal);
    null_port(&eal);
    looped_port(&eal);
    ring_port(&eal);
    several_queues(&eal);
    receive_function(&eal);
    port_errors(&eal);
    many_ports_come_and_go(&eal);
    workers(&eal);
    assert_eq!(leaked_pools(), 0);
    leaked_pool_stays_usable(&eal);
}

fn pool(eal: &Eal, name: &str) -> Mempool {
    Mempool::new(eal, name, &SMALL).unwrap()
}

fn mbuf_room(eal: &Eal) {
    let pool = pool(eal, "mbuf_room");
    let mut m = pool.alloc().unwrap();
    assert_eq!((m.len(), m.headroom(), m.tailroom()), (0, 128, 2048));
    assert!(m.is_flat() && m.is_empty());

    assert!(m.append(100) && m.prepend(28));
    m.data_mut().copy_from_slice(&(0..128).collect::<Vec<u8>>());
    assert_eq!((m.len(), m.headroom(), m.tailroom(), m.packet_len()), (128, 100, 1948, 128));
    m.trim_front(28);
    m.truncate(50);
    assert_eq!(m.data(), &(28..78).collect::<Vec<u8>>()[..]);
    assert_eq!((m.headroom(), m.tailroom(), m.packet_len()), (128, 1998, 50));

    // What does not fit changes nothing, sizes that overflow included.
    for n in [129, 65_536, usize::MAX] {
        assert!(!m.prepend(n), "{n}");
    }
    for n in [1999, 65_536, usize::MAX] {
        assert!(!m.append(n), "{n}");
    }
    m.truncate(51);
    assert_eq!((m.len(), m.headroom(), m.tailroom()), (50, 128, 1998));
    m.trim_front(usize::MAX);
    assert_eq!((m.len(), m.headroom(), m.packet_len()), (0, 178, 0));
    assert!(m.prepend(178) && m.append(1998) && !m.append(1) && !m.prepend(1));
    assert_eq!(m.len(), 2176);

    assert!(m.set_data(&[7; 60]) && !m.set_data(&[7; 2177]));
    assert_eq!((m.data(), m.headroom()), (&[7; 60][..], 128));
    assert!(m.set_data(&[8; 2100]));
    assert_eq!((m.headroom(), m.tailroom()), (76, 0));
    drop(m);
    assert!(pool.alloc_with(&[0; 2177]).is_none());
    pool.close().unwrap();
}

fn mbuf_tag_survives_a_ring(eal: &Eal) {
    let pool = pool(eal, "tag");
    let (mut tx, mut rx) = spsc(eal, "tag", 4).unwrap();
    let mut m = pool.alloc().unwrap();
    m.set_tag(0xfedc_ba98_7654_3210);
    m.set_port(9);
    assert_eq!(m.nb_segs(), 1);
    let mut burst: Burst<4> = Burst::new();
    burst.push(m).unwrap();
    assert_eq!((tx.push(&mut burst), rx.pop(&mut burst)), (1, 1));
    assert_eq!((burst[0].tag(), burst[0].port()), (0xfedc_ba98_7654_3210, 9));
    drop((burst, tx, rx));
    pool.close().unwrap();
}

/// Lengths tell packets apart.
fn packets<const N: usize>(pool: &Mempool, lengths: impl IntoIterator<Item = usize>) -> Burst<N> {
    let mut burst = Burst::new();
    for len in lengths {
        burst.push(pool.alloc_with(&vec![len as u8; len]).unwrap()).unwrap();
    }
    burst
}

fn lengths<const N: usize>(burst: &Burst<N>) -> Vec<usize> {
    burst.iter().map(Mbuf::len).collect()
}

fn burst_owns_its_packets(eal: &Eal) {
    let pool = pool(eal, "burst");
    let mut burst: Burst<8> = packets(&pool, 1..=8);
    assert!(burst.is_full() && burst.room() == 0 && burst.capacity() == 8);
    let refused = burst.push(pool.alloc_with(&[0; 99]).unwrap()).unwrap_err();
    assert_eq!(refused.len(), 99);
    drop(refused);
    assert_eq!(pool.in_use(), 8);

    assert_eq!(burst.pop().map(|m| m.len()), Some(8));
    assert_eq!(burst.swap_remove(0).map(|m| m.len()), Some(1));
    assert_eq!(lengths(&burst), [7, 2, 3, 4, 5, 6]);
    assert!(burst.swap_remove(6).is_none());
    assert_eq!(pool.in_use(), 6);

    let mut small: Burst<4> = packets(&pool, [9]);
    assert_eq!(small.take_from(&mut burst), 3);
    assert_eq!((lengths(&small), lengths(&burst)), (vec![9, 7, 2, 3], vec![4, 5, 6]));
    assert_eq!(small.take_from(&mut burst), 0);
    for m in &mut burst {
        m.truncate(1);
    }
    assert_eq!(lengths(&burst), [1, 1, 1]);

    burst.clear();
    assert!(burst.is_empty() && burst.pop().is_none());
    assert_eq!(pool.in_use(), 4);
    drop(small);
    pool.close().unwrap();
}

fn burst_drain_frees_the_rest(eal: &Eal) {
    let pool = pool(eal, "drain");
    let mut burst: Burst = packets(&pool, 1..=32);
    let mut drain = burst.drain();
    assert_eq!(drain.len(), 32);
    let kept: Vec<_> = drain.by_ref().take(3).collect();
    drop(drain);
    assert_eq!((burst.len(), pool.in_use()), (0, 3));
    assert_eq!(kept.iter().map(Mbuf::len).collect::<Vec<_>>(), [1, 2, 3]);
    drop(kept);

    // Forgetting the iterator must not free twice; what it held is gone until the pool is.
    let mut burst: Burst<2> = packets(&pool, [1, 2]);
    let mut drain = burst.drain();
    let (a, b) = (drain.next(), drain.next());
    std::mem::forget(drain);
    assert_eq!(burst.len(), 0);
    drop((a, b, burst));
    pool.close().unwrap();
}

fn pool_is_all_or_nothing(eal: &Eal) {
    let pool = pool(eal, "bulk");
    assert_eq!((pool.name(), pool.size(), pool.available()), ("bulk", 63, 63));
    let (mut a, mut b): (Burst<32>, Burst<32>) = (Burst::new(), Burst::new());
    assert!(pool.alloc_burst(&mut a, 32));
    assert!(!pool.alloc_burst(&mut a, 1), "no room");
    assert!(!pool.alloc_burst(&mut b, 32), "63 - 32 < 32");
    assert!(b.is_empty());
    assert!(pool.alloc_burst(&mut b, 31));
    assert!(pool.alloc().is_none());
    assert_eq!((pool.in_use(), pool.available()), (63, 0));
    drop((a, b));
    for _ in 0..1000 {
        let mut c: Burst = Burst::new();
        assert!(pool.alloc_burst(&mut c, 32), "a leak has exhausted the pool");
    }
    pool.close().unwrap();
}

fn pool_errors(eal: &Eal) {
    let p = pool(eal, "twice");
    let e = Mempool::new(eal, "twice", &SMALL).unwrap_err().to_string();
    assert!(e.contains("twice") && e.contains("exists"), "{e}");
    let huge = MempoolConfig { size: 1 << 20, ..SMALL };
    let e = Mempool::new(eal, "huge", &huge).unwrap_err().to_string();
    assert!(e.contains("huge") && e.contains("memory_mb"), "{e}");
    let wide = MempoolConfig { data_room: u16::MAX, ..SMALL };
    let e = Mempool::new(eal, "wide", &wide).unwrap_err().to_string();
    assert!(e.contains("65407"), "{e}");

    let (m, other) = (p.alloc(), p.clone());
    let e = p.close().unwrap_err();
    assert!(matches!(e, Error::PoolInUse { missing: 1, size: 63, handles: 1, .. }), "{e}");
    drop(m);
    assert!(Mempool::exists(eal, "twice").unwrap());
    other.close().unwrap();
    assert!(!Mempool::exists(eal, "twice").unwrap());
}

fn ring_gives_and_takes(eal: &Eal) {
    let pool = pool(eal, "ring");
    let (mut tx, mut rx) = spsc(eal, "ring", 20).unwrap();
    assert_eq!((tx.capacity(), rx.capacity()), (20, 20));
    let mut burst: Burst = packets(&pool, 1..=24);
    assert_eq!(tx.push(&mut burst), 20);
    assert_eq!(lengths(&burst), [21, 22, 23, 24], "what does not fit stays, in order");
    assert_eq!(tx.push(&mut burst), 0);

    let mut out: Burst<8> = packets(&pool, [50]);
    assert_eq!(rx.pop(&mut out), 7);
    assert_eq!(lengths(&out), [50, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(rx.pop(&mut out), 0, "no room");
    assert_eq!((rx.len(), tx.len(), rx.is_empty()), (13, 13, false));
    assert!(!rx.is_orphan());
    drop((tx, burst, out));
    assert!(rx.is_orphan());
    assert_eq!(pool.in_use(), 13);
    drop(rx);
    assert_eq!(pool.in_use(), 0, "the ring frees what is left");
    pool.close().unwrap();
}

fn ring_between_threads(eal: &Eal) {
    const COUNT: u64 = 200_000;
    let pool = pool(eal, "threads");
    let (mut tx, mut rx) = spsc(eal, "threads", 32).unwrap();
    let source = pool.clone();
    let sender = std::thread::spawn(move || {
        let mut burst: Burst<8> = Burst::new();
        let mut next = 0;
        while next < COUNT || !burst.is_empty() {
            while next < COUNT
                && !burst.is_full()
                && let Some(mut m) = source.alloc()
            {
                m.set_tag(next);
                next += 1;
                assert!(burst.push(m).is_ok());
            }
            if tx.push(&mut burst) == 0 {
                std::thread::yield_now();
            }
        }
    });
    let mut expected = 0;
    let mut burst: Burst = Burst::new();
    while expected < COUNT {
        if rx.pop(&mut burst) == 0 {
            std::thread::yield_now();
        }
        for m in burst.drain() {
            assert_eq!(m.tag(), expected);
            expected += 1;
        }
    }
    sender.join().unwrap();
    drop((rx, burst));
    pool.close().unwrap();
}

fn null_port(eal: &Eal) {
    let pool = pool(eal, "null");
    let mut port = Port::probe(eal, "net_null0,size=80,copy=1").unwrap();
    assert_eq!((port.name(), eal.port_count()), ("net_null0", 1));
    port.configure(&QUEUE, &[&pool]).unwrap();
    let Queues { mut rx, mut tx } = port.start().unwrap();
    let mut burst: Burst = Burst::new();
    for _ in 0..10 {
        assert_eq!(rx[0].recv(&mut burst), 32);
        assert_eq!(rx[0].recv(&mut burst), 0, "no room");
        assert!(burst.iter().all(|m| m.len() == 80 && m.is_flat()));
        assert_eq!(tx[0].send(&mut burst), 32);
        assert!(burst.is_empty());
    }
    let stats = port.stats().unwrap();
    assert_eq!((stats.ipackets, stats.opackets, stats.imissed), (320, 320, 0));
    port.reset_stats().unwrap();
    assert_eq!(port.stats().unwrap().ipackets, 0);
    assert!(port.link().unwrap().up);
    let rule = FlowRule { ipv6: false, tcp: false, dport: 4500, queue: 0 };
    for refused in [port.check_flow(rule), port.add_flow(rule)] {
        let e = refused.unwrap_err().to_string();
        assert!(e.contains("IPv4 UDP 4500 → queue 0") && e.contains("net_null0"), "{e}");
    }
    assert_eq!(port.flows(), 0);
    let info = port.info().unwrap();
    assert_eq!((info.driver.as_str(), info.device.as_str()), ("net_null", "net_null0"));
    drop((rx, tx, port, burst));
    assert_eq!(eal.port_count(), 0);
    pool.close().unwrap();
}

/// `net_ring` on its own returns what it sends.
fn looped_port(eal: &Eal) {
    let pool = pool(eal, "loop");
    let mut port = Port::probe(eal, "net_ring0").unwrap();
    port.configure(&QUEUE, &[&pool]).unwrap();
    let Queues { mut rx, mut tx } = port.start().unwrap();
    let mut burst: Burst = packets(&pool, 60..92);
    assert_eq!(tx[0].send(&mut burst), 32);
    assert_eq!(rx[0].recv(&mut burst), 32);
    assert_eq!(lengths(&burst), (60..92).collect::<Vec<_>>());
    drop((burst, rx, tx, port));
    pool.close().unwrap();
}

fn ring_port(eal: &Eal) {
    let pool = pool(eal, "pipe");
    let (mut port, mut ends) = Port::from_rings(eal, "pipe", 2, 16).unwrap();
    let config = PortConfig { rx_queues: 2, tx_queues: 2, ..QUEUE };
    port.configure(&config, &[&pool]).unwrap();
    let Queues { mut rx, mut tx } = port.start().unwrap();
    let mut burst: Burst = Burst::new();
    for q in 0..2 {
        let mut sent: Burst = packets(&pool, (1..=20).map(|n| n + 20 * q));
        assert_eq!(ends[q].inject.push(&mut sent), 16);
        assert_eq!(rx[q].recv(&mut burst), 16);
        assert_eq!(burst[0].len(), 1 + 20 * q);
        assert_eq!(tx[q].send(&mut burst), 16);
        assert_eq!(tx[q].send_or_drop(&mut sent), 4, "the ring is full");
        assert_eq!(ends[q].collect.pop(&mut burst), 16);
        assert_eq!(lengths(&burst), (1..=16).map(|n| n + 20 * q).collect::<Vec<_>>());
        burst.clear();
    }
    assert_eq!(port.stats().unwrap().ipackets, 32);
    // The far ends may go first or last.
    let left: &mut Burst = &mut packets(&pool, [1, 2]);
    tx[0].send(left);
    drop((rx, tx, port));
    assert_eq!(pool.in_use(), 2);
    drop(ends);
    pool.close().unwrap();
    // And the name is free again.
    drop(Port::from_rings(eal, "pipe", 1, 16).unwrap());
}

/// It sees every burst, its changes arrive, what it does not keep is freed, and it goes with the port.
fn receive_function(eal: &Eal) {
    let pool = pool(eal, "receive_function");
    for round in 0..2 {
        let (mut port, mut ends) = Port::from_rings(eal, "hooked", 1, 31).unwrap();
        port.configure(&QUEUE, &[&pool]).unwrap();
        let seen = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&seen);
        port.on_receive(move |burst| {
            count.fetch_add(burst.len(), Ordering::Relaxed);
            burst.iter_mut().for_each(|m| m.data_mut()[0] += 1);
            burst.len() - 1
        })
        .unwrap();
        for _ in 0..2 {
            let Queues { mut rx, .. } = port.start().unwrap();
            let (mut burst, mut got): (Burst, Burst) = (Burst::new(), Burst::new());
            assert_eq!(
                rx[0].recv(&mut got),
                0,
                "round {round}: nothing, and the function is not asked"
            );
            for i in [10, 20, 30] {
                burst.push(pool.alloc_with(&[i]).unwrap()).unwrap();
            }
            ends[0].inject.push(&mut burst);
            assert_eq!(rx[0].recv(&mut got), 2);
            let first: Vec<u8> = got.iter().map(|m| m.data()[0]).collect();
            assert_eq!(first, [11, 21], "round {round}");
            drop(rx);
            port.stop().unwrap();
        }
        assert_eq!(seen.load(Ordering::Relaxed), 6, "round {round}: once per packet");
        let two = PortConfig { rx_queues: 1, ..QUEUE };
        port.configure(&two, &[&pool]).unwrap();
        drop((port, ends));
    }
    pool.close().unwrap();
}

fn several_queues(eal: &Eal) {
    let pools = [pool(eal, "q0"), pool(eal, "q1")];
    let mut port = Port::probe(eal, "net_null1,copy=0").unwrap();
    let config = PortConfig { rx_queues: 2, tx_queues: 2, ..QUEUE };
    port.configure(&config, &[&pools[0], &pools[1]]).unwrap();
    let Queues { rx, tx } = port.start().unwrap();
    assert!(matches!(port.stop(), Err(Error::QueuesInUse { queues: 4, .. })));
    assert!(matches!(port.start(), Err(Error::QueuesInUse { queues: 4, .. })));
    let threads: Vec<_> = rx
        .into_iter()
        .zip(tx)
        .map(|(mut rx, mut tx)| {
            std::thread::spawn(move || {
                let mut burst: Burst = Burst::new();
                let received = rx.recv(&mut burst);
                (rx.queue_id(), tx.queue_id(), received, tx.send(&mut burst))
            })
        })
        .collect();
    for (q, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap(), (q as u16, q as u16, 32, 32));
    }
    port.stop().unwrap();
    assert_eq!(port.start().unwrap().rx.len(), 2, "a restart hands out new handles");
    port.stop().unwrap();
    port.configure(&QUEUE, &[&pools[0]]).unwrap();
    assert_eq!(port.start().unwrap().rx.len(), 1, "with the new shape");
    drop(port);
    for pool in pools {
        pool.close().unwrap();
    }
}

fn port_errors(eal: &Eal) {
    let p = pool(eal, "errors");
    let e = Port::open(eal, "net_null7").unwrap_err();
    assert!(matches!(e, Error::NoSuchPort { .. }), "{e}");
    let e = Port::probe(eal, "net_nonsense0").unwrap_err().to_string();
    assert!(e.contains("net_nonsense0"), "{e}");

    let mut port = Port::probe(eal, "net_null7").unwrap();
    assert!(matches!(Port::open(eal, "net_null7"), Err(Error::PortInUse { .. })));
    assert!(matches!(Port::probe(eal, "net_null7,copy=1"), Err(Error::PortInUse { .. })));
    let e = port.start().unwrap_err().to_string();
    assert!(e.contains("not configured"), "{e}");
    for (config, pools, word) in [
        (PortConfig { rx_queues: 0, ..QUEUE }, &[&p][..], "receive queues"),
        (PortConfig { tx_queues: 9999, ..QUEUE }, &[&p], "transmit queues"),
        (PortConfig { mtu: Some(1), ..QUEUE }, &[&p], "MTU"),
        (PortConfig { rx_queues: 3, tx_queues: 3, ..QUEUE }, &[&p, &p], "mempools"),
        (QUEUE, &[], "mempools"),
    ] {
        let e = port.configure(&config, pools).unwrap_err().to_string();
        assert!(e.contains(word) && e.contains("net_null7"), "{e}");
    }
    drop(port);
    p.close().unwrap();
}

/// More than DPDK has slots for, so that a slot that is not given back is noticed.
fn many_ports_come_and_go(eal: &Eal) {
    let pool = pool(eal, "many");
    for _ in 0..40 {
        let mut port = Port::probe(eal, "net_null0").unwrap();
        port.configure(&QUEUE, &[&pool]).unwrap();
        let mut queues = port.start().unwrap();
        drop(port);
        let mut burst: Burst = Burst::new();
        assert_eq!(queues.rx[0].recv(&mut burst), 32, "queues keep the port running");
    }
    assert_eq!(eal.port_count(), 0);
    pool.close().unwrap();
}

fn workers(eal: &Eal) {
    assert_eq!(lcore_id(), Some(0), "the thread that started the EAL");
    let config = MempoolConfig { size: 255, cache: 32, ..SMALL };
    let pool = Mempool::new(eal, "cached", &config).unwrap();
    let cpu = dpdk::available_cpus().unwrap()[0];
    let threads: Vec<_> = (0..2)
        .map(|n| {
            let pool = pool.clone();
            spawn_worker(eal, &format!("w{n}"), &[cpu], move || {
                for _ in 0..1000 {
                    let mut burst: Burst = Burst::new();
                    assert!(pool.alloc_burst(&mut burst, 32));
                }
                (lcore_id(), dpdk::available_cpus().unwrap())
            })
            .unwrap()
        })
        .collect();
    for worker in threads {
        let (id, cpus) = worker.join().unwrap();
        assert!(id.is_some_and(|id| id > 0), "{id:?}");
        assert_eq!(cpus, [cpu]);
    }
    // What sits in the caches of threads that have ended counts as free.
    assert_eq!(pool.available(), 255);
    pool.close().unwrap();

    let e = spawn_worker(eal, "nowhere", &[1023], || ()).unwrap_err().to_string();
    assert!(e.contains("1023"), "{e}");
    let eal = eal.clone();
    std::thread::spawn(move || {
        assert_eq!(lcore_id(), None);
        let registration = LcoreRegistration::new(&eal).unwrap();
        assert_eq!(lcore_id(), Some(registration.id()));
        assert!(LcoreRegistration::new(&eal).is_err(), "twice");
        drop(registration);
        assert_eq!(lcore_id(), None);
    })
    .join()
    .unwrap();
}

fn key(n: u64) -> HashKey {
    let mut bytes = [7; 16];
    bytes[4..12].copy_from_slice(&n.to_be_bytes());
    HashKey(bytes)
}

fn hash_table_is_a_map(eal: &Eal) {
    const N: usize = 3000;
    let mut table = HashTable::new(eal, "map", 4096, 1).unwrap();
    assert!(table.is_empty());
    // Each key needs its 16 bytes at least, and nobody needs a kilobyte for it.
    assert!((16 * 4096..1024 * 4096).contains(&table.bytes()), "{}", table.bytes());
    for n in 0..N {
        table.insert(&key(n as u64), n).unwrap();
    }
    // The same key again: another value, no second entry.
    table.insert(&key(5), usize::MAX).unwrap();
    assert_eq!(table.len(), N);
    // Every third of a burst is not there, and its value stays.
    let asked = |i: usize, n: usize| if i % 3 == 2 { n + N } else { n };
    for start in 0..N - 64 {
        let keys: [HashKey; 64] = std::array::from_fn(|i| key(asked(i, start + i) as u64));
        let mut values = [usize::MAX - 1; 64];
        let hits = table.lookup(&keys, &mut values);
        for (i, value) in values.into_iter().enumerate() {
            let n = asked(i, start + i);
            let want = match n {
                5 => Some(usize::MAX),
                n => (n < N).then_some(n),
            };
            assert_eq!(hits >> i & 1 == 1, want.is_some(), "{n}");
            assert_eq!(value, want.unwrap_or(usize::MAX - 1), "{n}");
        }
    }
    let mut one = [0];
    assert_eq!((table.lookup(&[key(77)], &mut one), one), (1, [77]));
}

fn hash_table_errors(eal: &Eal) {
    let mut table = HashTable::new(eal, "full", 8, 1).unwrap();
    let taken = HashTable::new(eal, "full", 8, 1).unwrap_err();
    assert!(taken.to_string().contains("hash table \"full\""), "{taken}");
    assert!(HashTable::new(eal, "small", 7, 1).is_err());
    assert!(HashTable::new(eal, "a-name-of-25-bytes-xxxxxxx", 8, 1).is_err());
    assert!(HashTable::new(eal, "more than there is", 1 << 24, 1).is_err());
    let fitted = (0..100).take_while(|n| table.insert(&key(*n), 0).is_ok()).count();
    assert!((8..100).contains(&fitted), "{fitted}");
    assert_eq!(table.len(), fitted);
    drop(table);
    // The name and the memory are free again.
    for _ in 0..200 {
        assert!(HashTable::new(eal, "full", 4096, 1).is_ok());
    }
}

/// Last: it keeps the EAL until the process ends.
fn leaked_pool_stays_usable(eal: &Eal) {
    let pool = pool(eal, "leaked");
    let mut m = pool.alloc_with(&[1; 64]).unwrap();
    drop(pool);
    assert_eq!(leaked_pools(), 1);
    m.data_mut().fill(2);
    assert_eq!(m.data(), [2; 64]);
    drop(m);
}
