//! `[node]`, `[eal]`, `[lcores]` and `[api]`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::Read;
use super::section::Section;
use super::values::{self, fault, fault_fix};
use crate::config::{Api, Eal, Lcores, MAX_LANES, Node};
use crate::machine::Machine;
use crate::types::{CpuId, Hugepages, Idle};
use crate::units::ByteSize;

/// The longest name of a node, port or peer.
pub(super) const NAME_MAX: usize = 32;
/// What `sockaddr_un` holds, less the terminating zero.
const SOCKET_MAX: usize = 107;

pub(super) fn node(section: Section<'_>) -> Read<'_, Node> {
    let name = section.required("name", "\"edge\"", |v| values::name(v, NAME_MAX));
    let id = section.optional("id", "\"02:00:00:00:00:0a\"", values::node_id);
    Read { value: Node { name: name.unwrap_or_default(), id }, section }
}

/// EAL options that mpipd sets itself, and where their place in the file is.
const OURS: &[(&str, &str)] = &[
    ("--file-prefix", "file_prefix"),
    ("--huge-dir", "hugepages"),
    ("--huge-unlink", "hugepages"),
    ("--in-memory", "hugepages"),
    ("--no-huge", "hugepages"),
    ("--no-shconf", "hugepages"),
    ("--socket-mem", "memory"),
    ("-m", "memory"),
    ("--lcores", "[lcores] workers"),
    ("--main-lcore", "[lcores] control"),
    ("--master-lcore", "[lcores] control"),
    ("-c", "[lcores] workers"),
    ("-l", "[lcores] workers"),
    ("-a", "[[port]] device"),
    ("--allow", "[[port]] device"),
    ("--vdev", "[[port]] device"),
];

pub(super) fn eal<'d>(section: Section<'d>, node: &Node) -> Read<'d, Eal> {
    let hugepages = section.optional("hugepages", "\"auto\"", values::keyword);
    let memory = section
        .optional("memory", "\"256 MiB\"", |v| values::size(v, 16 << 20, 1 << 40))
        .map(ByteSize);
    // EAL makes file names of it: the name's alphabet, and room for what EAL appends.
    let file_prefix = section.optional("file_prefix", "\"mpipd-edge\"", |v| values::name(v, 64));
    let extra = section.list("extra", "\"--log-level=8\"", |v| {
        let s = values::text(v)?;
        let option = s.split('=').next().unwrap_or(s);
        if let Some((_, home)) = OURS.iter().find(|(o, _)| *o == option) {
            return fault_fix(format!("mpipd sets {option:?} itself"), format!("use {home}"));
        }
        if s.is_empty() || s.contains('\0') {
            return fault("an option is not empty and has no zero byte");
        }
        Ok(s.to_owned())
    });
    Read {
        value: Eal {
            hugepages: hugepages.unwrap_or(Hugepages::Auto),
            memory: memory.unwrap_or(ByteSize(256 << 20)),
            file_prefix: file_prefix.unwrap_or_else(|| format!("mpipd-{}", node.name)),
            extra: extra.unwrap_or_default(),
        },
        section,
    }
}

/// A CPU that exists.
pub(super) fn cpu(v: &toml::de::DeValue<'_>, machine: &Machine) -> values::Outcome<CpuId> {
    let cpu = CpuId(values::integer(v, 0, 8191)?);
    if machine.has(cpu) {
        return Ok(cpu);
    }
    fault_fix(
        format!("CPU {cpu} does not exist on this machine"),
        format!("write one of {}", machine.describe()),
    )
}

pub(super) fn lcores<'d>(section: Section<'d>, machine: &Machine) -> Read<'d, Lcores> {
    let control = section.optional("control", "0", |v| cpu(v, machine));
    let control = control.unwrap_or_else(|| machine.first());
    let example = machine.last().to_string();
    let workers = section.list("workers", &example, |v| cpu(v, machine));
    if let Some(workers) = &workers {
        let mut seen = BTreeSet::new();
        for (i, w) in workers.iter().enumerate() {
            if !seen.insert(*w) {
                let what = format!("CPU {w} is named twice");
                section.fail_element("workers", i, what, "name each CPU once");
            }
        }
        if workers.is_empty() && section.usable("workers") {
            section.fail("workers", "is empty", format!("write workers = [{example}]"));
        } else if workers.len() > usize::from(MAX_LANES) {
            let what = format!("has {} CPUs, but there are at most 32 lanes", workers.len());
            section.fail("workers", what, "name at most 32 CPUs");
        }
    }
    let workers = workers.filter(|w| !w.is_empty()).unwrap_or_else(|| vec![machine.last()]);
    let idle = section.optional("idle", "\"adaptive\"", values::keyword).unwrap_or(Idle::Adaptive);
    let shared = idle == Idle::Busy && workers.contains(&control);
    if shared && section.usable("control") && section.usable("workers") {
        let what =
            format!("CPU {control} is also a worker's, which never yields with idle = \"busy\"");
        section.fail("control", what, "name a CPU of its own, or write idle = \"adaptive\"");
    }
    Read { value: Lcores { control, workers, idle }, section }
}

pub(super) fn api<'d>(section: Section<'d>, node: &Node) -> Read<'d, Api> {
    let socket = section.optional("socket", "\"/run/mpipd/edge.sock\"", |v| {
        let s = values::text(v)?;
        if !s.starts_with('/') {
            return fault(format!("{s:?} is not an absolute path"));
        }
        if s.len() > SOCKET_MAX {
            return fault(format!(
                "is {} bytes long, a socket's path at most {SOCKET_MAX}",
                s.len()
            ));
        }
        if s.ends_with('/') || s.contains('\0') {
            return fault(format!("{s:?} does not name a file"));
        }
        Ok(PathBuf::from(s))
    });
    let default = || PathBuf::from(format!("/run/mpipd/{}.sock", node.name));
    Read { value: Api { socket: socket.unwrap_or_else(default) }, section }
}
