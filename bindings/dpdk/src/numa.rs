//! NUMA nodes: which one a CPU is on, and where a thread's new memory comes from.

use std::marker::PhantomData;

/// The node of a CPU; `None` where the kernel does not tell.
#[must_use]
pub fn cpu_node(cpu: usize) -> Option<u16> {
    let entries = std::fs::read_dir(format!("/sys/devices/system/cpu/cpu{cpu}")).ok()?;
    let node = |name: &str| name.strip_prefix("node")?.parse().ok();
    entries.flatten().find_map(|entry| entry.file_name().to_str().and_then(node))
}

/// While it exists, pages that the calling thread is first to touch come from one node if that has some.
#[derive(Debug)]
pub struct PreferNode {
    set: bool,
    // The policy is the thread's.
    _one_thread: PhantomData<*const ()>,
}

impl PreferNode {
    /// Bits of the mask that is given to the kernel.
    const NODES: usize = 1024;

    /// Prefers a node; with `None`, or where the kernel refuses, everything stays as it is.
    #[must_use]
    pub fn new(node: Option<u16>) -> Self {
        let mut mask = [0_u64; Self::NODES / 64];
        let set = node.is_some_and(|n| match mask.get_mut(usize::from(n) / 64) {
            Some(word) => {
                *word = 1 << (n % 64);
                set_policy(libc::MPOL_PREFERRED, &mask)
            }
            None => false,
        });
        Self { set, _one_thread: PhantomData }
    }

    /// Whether the kernel has agreed.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.set
    }
}

impl Drop for PreferNode {
    fn drop(&mut self) {
        if self.set {
            // It was let to set one, so it may take it back.
            set_policy(libc::MPOL_DEFAULT, &[]);
        }
    }
}

fn set_policy(mode: i32, mask: &[u64]) -> bool {
    // The kernel takes the number of bits plus one, and nothing for an empty mask.
    let (at, bits) = match mask.len() {
        0 => (std::ptr::null(), 0),
        words => (mask.as_ptr(), words * 64 + 1),
    };
    // SAFETY: the mask has as many bits as said, less one, and lives until the call returns; the policy
    // decides where pages come from, not what is in them.
    unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, at, bits) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_have_nodes() {
        let cpu = crate::available_cpus().unwrap()[0];
        let listed = std::path::Path::new("/sys/devices/system/node").exists();
        assert_eq!(cpu_node(cpu).is_some(), listed);
        assert_eq!(cpu_node(usize::MAX), None);
    }

    #[test]
    fn preferring_a_node_changes_no_memory() {
        for node in [None, Some(0), cpu_node(0), Some(63), Some(1023), Some(u16::MAX)] {
            let prefer = PreferNode::new(node);
            assert!(!prefer.is_set() || node.is_some());
            let memory = vec![7_u8; 1 << 20];
            drop(prefer);
            assert!(memory.iter().all(|b| *b == 7));
        }
        assert!(!PreferNode::new(Some(u16::MAX)).is_set(), "there is no such node");
    }
}
