//! Which memory is near what: a pool of packet buffers for each NUMA node that receives or works.
//!
//! A NIC writes packets to memory and the lcore that polls it reads them, so both should be on the
//! pool's node. Where they are not on one node, the buffers are near the NIC, and the operator is told.
//! A worker takes its own buffers, and has its tables, where it runs.
//!
//! Runs once, when the devices are opened. A machine with one node, or that does not tell, has one pool.

/// A port's place. A device without hardware of its own is nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub device: Option<u16>,
    /// Of the lcore of each receive queue.
    pub rx: Vec<Option<u16>>,
}

/// Which pool is whose, by its place in `pools`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Node of each pool, at least one; `None`: any.
    pub pools: Vec<Option<u16>>,
    /// By port and receive queue.
    pub rx: Vec<Vec<usize>>,
    /// By worker.
    pub workers: Vec<usize>,
}

impl Plan {
    pub fn new(ports: &[Place], workers: &[Option<u16>]) -> Self {
        let wanted = |port: &Place| -> Vec<Option<u16>> {
            port.rx.iter().map(|lcore| port.device.or(*lcore)).collect()
        };
        let rx: Vec<Vec<Option<u16>>> = ports.iter().map(wanted).collect();
        let mut pools: Vec<Option<u16>> = Vec::new();
        for node in rx.iter().flatten().chain(workers).filter(|n| n.is_some()) {
            if !pools.contains(node) {
                pools.push(*node);
            }
        }
        if pools.is_empty() {
            pools.push(None);
        }
        // Who is nowhere takes the first.
        let of = |node: &Option<u16>| pools.iter().position(|p| p == node).unwrap_or(0);
        Self {
            rx: rx.iter().map(|queues| queues.iter().map(of).collect()).collect(),
            workers: workers.iter().map(of).collect(),
            pools,
        }
    }
}

/// The node that all of these CPUs are on, if it is one.
pub(crate) fn node_of(cpus: &[usize], cpu_node: impl Fn(usize) -> Option<u16>) -> Option<u16> {
    let (first, others) = cpus.split_first()?;
    let node = cpu_node(*first)?;
    others.iter().all(|c| cpu_node(*c) == Some(node)).then_some(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(device: Option<u16>, rx: &[u16]) -> Place {
        Place { device, rx: rx.iter().map(|n| Some(*n)).collect() }
    }

    #[test]
    fn one_node_has_one_pool() {
        let plan = Plan::new(&[place(Some(0), &[0, 0]), place(None, &[0])], &[Some(0), Some(0)]);
        assert_eq!(plan.pools, [Some(0)]);
        assert_eq!((plan.rx, plan.workers), (vec![vec![0, 0], vec![0]], vec![0, 0]));
    }

    #[test]
    fn a_machine_that_does_not_tell_has_one_pool_anywhere() {
        let unknown = Place { device: None, rx: vec![None, None] };
        let plan = Plan::new(&[unknown], &[None]);
        let want = Plan { pools: vec![None], rx: vec![vec![0, 0]], workers: vec![0] };
        assert_eq!(plan, want);
    }

    #[test]
    fn buffers_are_near_the_device_else_near_the_lcore() {
        // A NIC on node 1 that is polled from both; a virtual device polled from both; workers too.
        let plan = Plan::new(&[place(Some(1), &[0, 1]), place(None, &[0, 1])], &[Some(0), Some(1)]);
        assert_eq!(plan.pools, [Some(1), Some(0)]);
        assert_eq!(plan.rx, [vec![0, 0], vec![1, 0]]);
        assert_eq!(plan.workers, [1, 0]);
    }

    #[test]
    fn every_part_has_a_pool_of_its_node_or_the_first() {
        let nodes = [None, Some(0), Some(1), Some(5)];
        for (a, b, c, d) in nodes
            .iter()
            .flat_map(|a| nodes.iter().map(move |b| (a, b)))
            .flat_map(|(a, b)| nodes.iter().map(move |c| (a, b, c)))
            .flat_map(|(a, b, c)| nodes.iter().map(move |d| (*a, *b, *c, *d)))
        {
            let plan = Plan::new(&[Place { device: a, rx: vec![b, c] }], &[d]);
            let parts = [(a.or(b), plan.rx[0][0]), (a.or(c), plan.rx[0][1]), (d, plan.workers[0])];
            for (node, pool) in parts {
                assert!(node.is_none() && pool == 0 || plan.pools[pool] == node, "{plan:?}");
            }
            let mut once = plan.pools.clone();
            once.sort();
            once.dedup();
            assert_eq!(once.len(), plan.pools.len(), "{plan:?}");
        }
    }

    #[test]
    fn an_lcore_of_several_nodes_is_nowhere() {
        let node = |cpu: usize| (cpu < 4).then_some((cpu / 2) as u16);
        assert_eq!(node_of(&[0, 1], node), Some(0));
        assert_eq!(node_of(&[3], node), Some(1));
        for cpus in [&[1, 2][..], &[], &[9], &[0, 9]] {
            assert_eq!(node_of(cpus, node), None, "{cpus:?}");
        }
    }
}
