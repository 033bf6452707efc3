//! [native] Paths without a wrapper: only headers are rewritten. TCP and UDP over 40 + 20 Mbit/s without NATs.

use super::shares;
use super::udp::count;
use crate::lab::Lab;
use crate::lab::error::Result;
use crate::lab::gateway::Settings;
use crate::lab::topology::PATHS;
use crate::result::{Goal, Row};
use serde_json::Value;

const ID: &str = "native";

pub(super) fn run(lab: &mut Lab<'_>) -> Result<()> {
    let sums = shares::plain_sums(lab)?;
    let pair = lab.gateways(&Settings { encapsulation: vec!["native"], ..Settings::default() })?;
    shares::rows(lab, ID, &shares::Case::plain("native"), &sums)?;
    for gateway in [&pair.a, &pair.b] {
        let native = |p: &&Value| p.get("encapsulation").and_then(Value::as_str) == Some("native");
        let live = gateway.live_paths()?.iter().filter(native).count();
        let what = format!("live paths of {} that carry data natively", gateway.name());
        let goal = Some(Goal::exactly(PATHS.len() as f64));
        lab.row(Row::new(ID, what, "mpip", "paths", goal, &[count(live as u64)]));
    }
    lab.end_gateways("mpip", pair)
}
