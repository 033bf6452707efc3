//! How a port's packets get to its receive queues, best first: by rules of the device that know the
//! lanes, by RSS, or as the device happens to do it.
//!
//! Whatever brings a packet to a queue, the receive stage hands it to the worker that owns its session
//! (`steer`), so nothing here is needed for a packet to be treated rightly: a rule that puts a lane
//! into the queue of its worker's lcore saves the crossing of a ring.
//!
//! Only the lane ports of WAN packets are something a device can match. A packet from the LAN has a
//! lane by our hash of its tuple, a `native` one by its session id, behind its payload: both come by
//! RSS and cross.

use dpdk::{FlowRule, Port};
use mpip_core::ids::Lane;
use mpip_core::snapshot::Role;

/// How a port's packets get to its receive queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxSpread {
    /// There is one queue.
    OneQueue,
    /// The device has a rule for each lane; what no rule is for is hashed, or as with `Device`.
    Rules,
    /// The device hashes addresses and ports, with a symmetric key where it takes one.
    Rss,
    /// The device has neither: it, or its far end, chooses as it does (memif, rings, TAP).
    Device,
}

/// What decides which rules a port gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lanes<'a> {
    pub role: Role,
    /// Port of lane 0.
    pub base_port: u16,
    /// Whether lanes have TCP ports too (`faketcp`).
    pub tcp: bool,
    /// Lcore of each worker.
    pub workers: &'a [usize],
    /// Lcore of each receive queue.
    pub rx_lcores: &'a [usize],
}

impl Lanes<'_> {
    /// The rules that bring every lane to its worker, or why there are none to be had.
    pub fn rules(&self) -> Result<Vec<FlowRule>, &'static str> {
        if self.role != Role::Wan {
            return Err("no rule can match the lane of a LAN packet, which is a hash");
        }
        if self.workers.len() < 2 {
            return Err("one worker owns all lanes");
        }
        let mut rules = Vec::new();
        for lane in 0..Lane::MAX {
            // As `steer` has it.
            let lcore = self.workers.get(lane % self.workers.len());
            let queue = self.rx_lcores.iter().position(|l| Some(l) == lcore);
            let (Some(queue), Some(dport)) = (queue, self.base_port.checked_add(lane as u16))
            else {
                continue;
            };
            for tcp in if self.tcp { &[false, true][..] } else { &[false] } {
                for ipv6 in [false, true] {
                    rules.push(FlowRule { ipv6, tcp: *tcp, dport, queue: queue as u16 });
                }
            }
        }
        if rules.is_empty() { Err("no worker is on an lcore that receives") } else { Ok(rules) }
    }
}

/// A device that rules are given to.
pub(crate) trait Steered {
    /// Has the device follow a rule.
    fn add(&mut self, rule: FlowRule) -> dpdk::Result<()>;
    /// Takes back every rule.
    fn clear(&mut self) -> dpdk::Result<()>;
}

impl Steered for Port {
    fn add(&mut self, rule: FlowRule) -> dpdk::Result<()> {
        self.add_flow(rule)
    }
    fn clear(&mut self) -> dpdk::Result<()> {
        self.remove_flows()
    }
}

/// Gives the device its rules: all, or none if it refuses one. Returns what spreads the packets, and
/// why, for the operator.
pub(crate) fn install(
    device: &mut impl Steered,
    lanes: &Lanes<'_>,
    rss: bool,
) -> (RxSpread, String) {
    if lanes.rx_lcores.len() < 2 {
        return (RxSpread::OneQueue, "there is one queue".to_owned());
    }
    let (rest, rest_is) =
        if rss { (RxSpread::Rss, "RSS") } else { (RxSpread::Device, "the device as it does") };
    let rules = match lanes.rules() {
        Ok(rules) => rules,
        Err(why) => return (rest, format!("{why}; by {rest_is}")),
    };
    for rule in &rules {
        let Err(refused) = device.add(*rule) else { continue };
        let left = match device.clear() {
            Ok(()) => String::new(),
            Err(e) => format!(" ({e})"),
        };
        return (rest, format!("no rules for lanes: {refused}{left}; by {rest_is}"));
    }
    let n = rules.len();
    (RxSpread::Rules, format!("{n} rules bring lanes to their workers; others by {rest_is}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn wan<'a>(workers: &'a [usize], rx_lcores: &'a [usize]) -> Lanes<'a> {
        Lanes { role: Role::Wan, base_port: 4500, tcp: false, workers, rx_lcores }
    }

    #[test]
    fn each_lane_goes_to_the_queue_of_its_workers_lcore() {
        let lanes = Lanes { tcp: true, ..wan(&[5, 7, 9], &[9, 5, 7]) };
        let rules = lanes.rules().unwrap();
        // Four kinds of packets for each of 32 lanes, none twice.
        let by_kind: BTreeMap<_, _> =
            rules.iter().map(|r| ((r.dport, r.ipv6, r.tcp), r.queue)).collect();
        assert_eq!((rules.len(), by_kind.len()), (4 * Lane::MAX, 4 * Lane::MAX));
        for ((dport, ..), queue) in by_kind {
            let worker = usize::from(dport - 4500) % 3;
            assert_eq!(lanes.rx_lcores[usize::from(queue)], lanes.workers[worker], "{dport}");
        }
        assert!(wan(&[0, 1], &[0, 1]).rules().unwrap().iter().all(|r| !r.tcp));
    }

    #[test]
    fn lanes_of_workers_elsewhere_have_no_rule() {
        let rules = wan(&[0, 1], &[1, 2]).rules().unwrap();
        assert_eq!(rules.len(), Lane::MAX, "every second lane, IPv4 and IPv6");
        assert!(rules.iter().all(|r| r.dport % 2 == 1 && r.queue == 0));
        // Ports end where they end.
        let last = Lanes { base_port: u16::MAX - 1, ..wan(&[0, 1], &[0, 1]) };
        assert_eq!(last.rules().unwrap().len(), 4);
    }

    #[test]
    fn there_is_a_reason_for_no_rules() {
        let lan = Lanes { role: Role::Lan, ..wan(&[0, 1], &[0, 1]) };
        assert!(lan.rules().unwrap_err().contains("LAN"));
        assert!(wan(&[0], &[0, 1]).rules().unwrap_err().contains("one worker"));
        assert!(wan(&[2, 3], &[0, 1]).rules().unwrap_err().contains("no worker is on"));
    }

    /// Takes so many rules.
    struct Fake {
        room: usize,
        rules: Vec<FlowRule>,
    }

    impl Steered for Fake {
        fn add(&mut self, rule: FlowRule) -> dpdk::Result<()> {
            if self.rules.len() == self.room {
                let (what, code, text) = ("making a rule".into(), 28, "table full".into());
                return Err(dpdk::Error::Call { what, code, text });
            }
            self.rules.push(rule);
            Ok(())
        }
        fn clear(&mut self) -> dpdk::Result<()> {
            self.rules.clear();
            Ok(())
        }
    }

    #[test]
    fn a_device_has_all_rules_or_none() {
        let lanes = wan(&[0, 1], &[0, 1]);
        let mut fake = Fake { room: 64, rules: Vec::new() };
        let (spread, why) = install(&mut fake, &lanes, true);
        assert_eq!((spread, fake.rules), (RxSpread::Rules, lanes.rules().unwrap()));
        assert!(why.contains("64 rules") && why.contains("RSS"), "{why}");

        for (rss, spread) in [(true, RxSpread::Rss), (false, RxSpread::Device)] {
            for room in [0, 17, 63] {
                let mut fake = Fake { room, rules: Vec::new() };
                let (got, why) = install(&mut fake, &lanes, rss);
                assert_eq!((got, fake.rules.len()), (spread, 0), "{why}");
                assert!(why.contains("table full"), "{why}");
            }
        }
        let mut fake = Fake { room: 0, rules: Vec::new() };
        let one = wan(&[0, 1], &[0]);
        assert_eq!(install(&mut fake, &one, true).0, RxSpread::OneQueue);
        let lan = Lanes { role: Role::Lan, ..lanes };
        assert_eq!(install(&mut fake, &lan, true).0, RxSpread::Rss);
    }
}
