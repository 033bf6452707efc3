//! [ipv6] Sessions of either family over paths of either family. Neighbours, routers and echo are the kernel's
//! business: a gateway's twin interfaces answer on the LAN and resolve next hops on the WAN.

use super::shares::{self, Case};
use super::udp::count;
use crate::lab::Lab;
use crate::lab::error::Result;
use crate::lab::gateway::Settings;
use crate::lab::process::Cmd;
use crate::lab::topology::{self, HOST_B, Side, host_v6, lan_v6};
use crate::result::{Goal, Row};

const ID: &str = "ipv6";
/// Echo requests from each host to its gateway.
const PINGS: u32 = 3;

pub(super) fn run(lab: &mut Lab<'_>) -> Result<()> {
    let sums = shares::plain_sums(lab)?;
    topology::add_ipv6(&lab.ns)?;
    for (wan_ipv6, paths) in [(false, "IPv4"), (true, "IPv6")] {
        let settings = Settings { lan_ipv6: true, wan_ipv6, ..Settings::default() };
        let pair = lab.gateways(&settings)?;
        let mut answers = 0;
        for side in [Side::A, Side::B] {
            let ping = format!("ping -6 -n -q -c {PINGS} -i 0.2 -W 2 {}", lan_v6(side));
            answers += received(&lab.ns.run(side.host(), &Cmd::line(&ping))?);
        }
        let what = format!("{paths} paths: answers of the gateways' twins to ping over IPv6");
        let goal = Some(Goal::exactly(f64::from(2 * PINGS)));
        lab.row(Row::new(ID, what, "mpip", "answers", goal, &[count(answers)]));
        for (address, sessions) in [(host_v6(Side::B).into(), "IPv6"), (HOST_B.into(), "IPv4")] {
            let prefix = format!("{sessions} over {paths}: ");
            shares::rows(lab, ID, &Case { how: &prefix, prefix: prefix.clone(), address }, &sums)?;
        }
        lab.end_gateways(&format!("mpip, {paths} paths"), pair)?;
    }
    Ok(())
}

/// Answers, as the summary of `ping` counts them.
fn received(text: &str) -> u64 {
    let summary = text.lines().find(|l| l.contains(" received")).unwrap_or_default();
    summary
        .split(',')
        .find(|part| part.contains(" received"))
        .and_then(|part| part.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn answers_are_counted_from_the_summary() {
        let text =
            "--- x ping statistics ---\n3 packets transmitted, 2 received, 33% packet loss\n";
        assert_eq!(super::received(text), 2);
        assert_eq!(super::received("unknown host"), 0);
    }
}
