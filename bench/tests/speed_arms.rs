//! Arms of `mpip-bench speed` that are processes of our own: what they answer on their standard output.

use std::io::Write;
use std::process::{Command, Output, Stdio};

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
    let (out, lines) = arm("speed-pktgen", &generator(), "measure 60\nmeasure 60\nquit\n");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let [ready, first, second, end] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(ready["warnings"], json!([]));
    for sent in [first, second] {
        assert!(sent["packets"].as_u64() > Some(1000) && sent["trouble"] == 0, "{sent}");
        // The thread has worked in this measurement, and nothing of another one is in the figure.
        let (cpu, wall) = (sent["cpu_ns"].as_u64(), sent["wall_ns"].as_u64());
        assert!(cpu > Some(0) && cpu <= wall && wall >= Some(60_000_000), "{sent}");
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
