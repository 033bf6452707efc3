//! `mpipctl explain flow`: the worker that has the flow is asked.

use super::Control;
use crate::api::protocol::Answer;
use crate::api::query::FlowQuery;
use crate::api::server::Refusal;
use crate::status::{FlowPath, FlowStatus, FlowToPeer, TupleStatus};
use mpip_core::engine::{Command, ExplainQuery, Explanation};
use mpip_core::rules::Direction;
use mpip_core::tuple::FlowTuple;
use std::sync::mpsc;
use tokio::sync::oneshot;

/// Packets of a trial.
const TRIAL: u16 = 100;

/// A question on its way to the workers.
pub(super) struct Explaining {
    query: FlowQuery,
    reply: oneshot::Sender<Result<Answer, Refusal>>,
    answers: mpsc::Receiver<Option<Explanation>>,
    /// Workers that have not answered yet.
    outstanding: usize,
    /// The answer of the worker that has the session, else of any.
    best: Option<Explanation>,
}

impl Control {
    pub(super) fn start_explaining(
        &mut self,
        query: FlowQuery,
        reply: oneshot::Sender<Result<Answer, Refusal>>,
    ) {
        let refuse = |why: &str| Err(Refusal(why.to_owned()));
        if query.source.is_ipv4() != query.destination.is_ipv4() {
            // The asker may be gone.
            let _ = reply.send(refuse("source and destination are of different families"));
            return;
        }
        let flow = FlowTuple {
            protocol: query.protocol.0,
            src: query.source.ip(),
            sport: query.source.port(),
            dst: query.destination.ip(),
            dport: query.destination.port(),
        };
        let (sender, answers) = mpsc::channel();
        let question =
            ExplainQuery { flow, size: query.size, dscp: query.dscp & 63, packets: TRIAL };
        if self.plane.command(&Command::Explain(question, sender)) {
            let outstanding = self.plane.cells().len();
            self.explaining.push(Explaining { query, reply, answers, outstanding, best: None });
        } else {
            let _ = reply.send(refuse("the workers take no more commands now; try again"));
        }
    }

    /// Takes what the workers have answered.
    pub(super) fn collect_explanations(&mut self) {
        let mut going_on = Vec::new();
        for mut e in std::mem::take(&mut self.explaining) {
            while let Ok(answer) = e.answers.try_recv() {
                e.outstanding = e.outstanding.saturating_sub(1);
                let has_session = answer.as_ref().is_some_and(|a| a.session.is_some());
                if has_session || e.best.is_none() {
                    e.best = answer;
                }
            }
            if e.outstanding > 0 {
                going_on.push(e);
            } else {
                let peer = e.best.as_ref().map(|best| self.flow_to_peer(best));
                let status = FlowStatus {
                    flow: TupleStatus {
                        protocol: e.query.protocol,
                        source: e.query.source,
                        destination: e.query.destination,
                    },
                    size_bytes: e.query.size,
                    dscp: e.query.dscp,
                    peer,
                };
                let _ = e.reply.send(Ok(Answer::Flow(Box::new(status))));
            }
        }
        self.explaining = going_on;
    }

    fn flow_to_peer(&self, e: &Explanation) -> FlowToPeer {
        let port = |ix: mpip_core::ids::PortIx| {
            self.config.ports.get(usize::from(ix.0)).map_or_else(String::new, |p| p.name.clone())
        };
        let peer = self.config.peers.get(usize::from(e.peer.0));
        FlowToPeer {
            name: peer.map_or("discovered", |p| &p.name).to_owned(),
            session: e.session.map(|s| s.to_string()),
            sent_packets: e.sent_packets,
            direction: match e.direction {
                Direction::Out => "out",
                Direction::In => "in",
            }
            .to_owned(),
            candidates: e.candidates.iter().map(|r| self.policy.name(*r).to_owned()).collect(),
            rule: self.policy.row(&self.config, usize::from(e.rule)),
            ordered: e.ordered,
            paths: e
                .paths
                .iter()
                .map(|p| FlowPath {
                    local_id: p.id.0,
                    port: port(p.port),
                    live: p.live,
                    chosen: p.chosen,
                    weight: p.weight,
                    delay_us: p.delay_us,
                    next_packets: p.picks,
                })
                .collect(),
        }
    }
}
