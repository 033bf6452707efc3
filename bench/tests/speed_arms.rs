//! Arms of `mpip-bench speed` that are processes of our own: what they answer on their standard output.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use mpip_bench::speed::place;
use serde_json::{Value, json};

/// Runs an arm with these commands on its standard input.
fn arm(name: &str, spec: &Value, commands: &str) -> (Output, Vec<Value>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mpip-bench"))
        .args([name, &spec.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the arm starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(commands.as_bytes()).expect("it reads");
    drop(stdin);
    let out = child.wait_with_output().expect("it ends");
    let lines = String::from_utf8_lossy(&out.stdout);
    let lines = lines.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
    (out, lines)
}

fn generator() -> Value {
    json!({"device": "net_null0,no-rx=1", "flows": 64, "frame": 64, "lcore_cpu": 0, "helper_cpu": 0,
        "memory_mb": 96})
}

#[test]
fn the_generator_sends_as_long_as_it_is_told_and_ends_clean() {
    let (out, lines) = arm("speed-pktgen", &generator(), "measure 400\nmeasure 400\nquit\n");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let [ready, first, second, end] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(ready["warnings"], json!([]));
    for sent in [first, second] {
        assert!(sent["packets"].as_u64() > Some(1000) && sent["trouble"] == 0, "{sent}");
        // The thread has worked in this measurement, and nothing of another one is in the figure.
        let (cpu, wall) = (sent["cpu_ns"].as_u64(), sent["wall_ns"].as_u64());
        assert!(cpu > Some(0) && cpu <= wall && wall >= Some(400_000_000), "{sent}");
    }
    assert_eq!(end["leaked"], 0);
}

#[test]
fn the_generator_refuses_what_it_cannot_do() {
    let (out, _) = arm("speed-pktgen", &generator(), "faster\n");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains("faster"), "{said}");
    let mut small = generator();
    small["frame"] = json!(20);
    let (out, lines) = arm("speed-pktgen", &small, "quit\n");
    assert!(!out.status.success() && lines.is_empty(), "{lines:?}");
}

#[test]
fn baselines_forward_what_they_receive() {
    let file = std::env::temp_dir().join(format!("mpip-baseline-{}.pcap", std::process::id()));
    let frames = (0..64).map(|i| place::lan_frame(i, 60));
    place::write_pcap(&file, frames).expect("a capture file");
    let receive = format!("net_pcap0,rx_pcap={},infinite_rx=1", file.display());
    for kind in ["Twin", "L3fwd"] {
        let spec = json!({"kind": kind, "receive": receive, "flows": 64, "lcore_cpu": 0,
            "helper_cpu": 0, "memory_mb": 96});
        let (out, lines) = arm("speed-baseline", &spec, "measure 400\nmeasure 400\nquit\n");
        assert!(out.status.success(), "{kind}: {}", String::from_utf8_lossy(&out.stderr));
        let [_, first, second] = &lines[..] else { panic!("{kind}: {lines:?}") };
        for r in [first, second] {
            assert!(r["packets"].as_u64() > Some(1000) && r["lost"] == 0, "{kind}: {r}");
            assert!(
                r["cpu_ns"].as_u64() > Some(0) && r["cpu_ns"].as_u64() <= r["wall_ns"].as_u64()
            );
        }
    }
    // Flows that are not in the table are lost, and it says so.
    let spec = json!({"kind": "Twin", "receive": receive, "flows": 8, "lcore_cpu": 0,
        "helper_cpu": 0, "memory_mb": 96});
    let (_, lines) = arm("speed-baseline", &spec, "measure 400\nquit\n");
    assert!(lines[1]["lost"].as_u64() > Some(0), "{lines:?}");
    let _gone = std::fs::remove_file(file);
}

#[test]
fn the_latency_generator_knows_when_its_packets_left() {
    let template = "[[stream]]\nname = \"t\"\nsrc_ip = \"10.0.0.1\"\ndst_ip = \"10.0.0.2\"\n\
                    src_port = { from = 1, to = 8 }\ndst_port = 9\nsize = 64\n";
    let spec = json!({"pairs": [["net_ring0", "net_ring0"]], "template": template,
        "cpu": 0, "memory_mb": 96});
    let (out, lines) = arm("speed-latency", &spec, "trial 0 2000 400\ntrial 0 2000 400\nquit\n");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let last = lines.last().expect("a trial");
    let of = |key: &str| last[key].as_u64().unwrap_or_else(|| panic!("{key} in {last}"));
    assert!(lines.len() == 3 && of("sent") > 10 && of("received") == of("sent"), "{lines:?}");
    assert!(of("p50") > 0 && of("p50") <= of("p99") && of("p999") <= of("max"), "{last}");
    assert!(of("foreign") == 0, "{last}");
    let (out, _) = arm("speed-latency", &spec, "trial 1 2000 300\n");
    assert!(!out.status.success(), "there is one pair");
}
