//! `mpipctl explain flow`: the worker that has the flow is asked.

use super::{Control, status};
use crate::api::protocol::Answer;
use crate::api::query::FlowQuery;
use crate::api::server::Refusal;
use crate::status::{FlowPath, FlowStatus, FlowToPeer, TupleStatus};
use mpip_core::engine::{Command, ExplainQuery, Explanation, WhyOut};
use mpip_core::rules::Direction;
use mpip_core::time::Nanos;
use mpip_core::tuple::FlowTuple;
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Packets of a trial.
const TRIAL: u16 = 100;
/// Time for which flows are watched before a question's turn comes and in it, milliseconds: an answer is due within five
/// seconds.
const LONGEST_WAIT_MS: u32 = 4_000;
/// Questions that may wait for those before them.
const MOST_WAITING: usize = 16;

/// A question, and how far it is. Workers watch one flow at a time, so questions take turns.
pub(super) struct Explaining {
    query: FlowQuery,
    flow: FlowTuple,
    reply: oneshot::Sender<Result<Answer, Refusal>>,
    stage: Stage,
}

enum Stage {
    /// Another one is being answered.
    Waiting,
    /// The workers watch the flow until then.
    Watched { until: Nanos },
    /// The workers were asked.
    Asked {
        answers: mpsc::Receiver<Option<Explanation>>,
        /// Workers that have not answered yet.
        outstanding: usize,
        /// The answer of the worker that has the session, else of any.
        best: Option<Explanation>,
    },
}

impl Explaining {
    // Whoever asked may be gone; there is nothing to be done about that.
    fn refuse(self) {
        let why = "the workers take no more commands now; try again";
        let _ = self.reply.send(Err(Refusal(why.to_owned())));
    }

    fn answer(self, peer: Option<FlowToPeer>) {
        let status = FlowStatus {
            flow: TupleStatus {
                protocol: self.query.protocol,
                source: self.query.source,
                destination: self.query.destination,
            },
            size_bytes: self.query.size,
            dscp: self.query.dscp,
            peer,
        };
        let _ = self.reply.send(Ok(Answer::Flow(Box::new(status))));
    }
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
        let before: u32 = self.explaining.iter().map(|e| u32::from(e.query.watch_ms)).sum();
        let wait = before + u32::from(query.watch_ms);
        if wait > LONGEST_WAIT_MS || self.explaining.len() >= MOST_WAITING {
            let _ = reply.send(refuse("others are asking for explanations; try again"));
            return;
        }
        self.explaining.push_back(Explaining { query, flow, reply, stage: Stage::Waiting });
    }

    /// When the flow being watched is to be explained.
    pub(super) fn explanation_due(&self) -> Option<Nanos> {
        match self.explaining.front()?.stage {
            Stage::Watched { until } => Some(until),
            Stage::Waiting | Stage::Asked { .. } => None,
        }
    }

    /// Takes what the workers have answered, and turns to the next question.
    pub(super) fn collect_explanations(&mut self) {
        while let Some(mut e) = self.explaining.pop_front() {
            if e.reply.is_closed() {
                // Nobody waits for it any more.
                continue;
            }
            if matches!(e.stage, Stage::Waiting) {
                let until = self.plane.now() + Duration::from_millis(e.query.watch_ms.into());
                let watched = e.query.watch_ms == 0 || self.plane.command(&Command::Watch(e.flow));
                if !watched {
                    e.refuse();
                    continue;
                }
                e.stage = Stage::Watched { until };
            }
            if matches!(e.stage, Stage::Watched { until } if self.plane.now() >= until) {
                let (sender, answers) = mpsc::channel();
                let (size, dscp) = (e.query.size, e.query.dscp & 63);
                let question = ExplainQuery { flow: e.flow, size, dscp, packets: TRIAL };
                if !self.plane.command(&Command::Explain(question, sender)) {
                    e.refuse();
                    continue;
                }
                let outstanding = self.plane.cells().len();
                e.stage = Stage::Asked { answers, outstanding, best: None };
            }
            if let Stage::Asked { answers, outstanding, best } = &mut e.stage {
                while let Ok(answer) = answers.try_recv() {
                    *outstanding = outstanding.saturating_sub(1);
                    let has_session = answer.as_ref().is_some_and(|a| a.session.is_some());
                    if has_session || best.is_none() {
                        *best = answer;
                    }
                }
                if *outstanding == 0 {
                    let peer = best.as_ref().map(|best| self.flow_to_peer(&e.query, best));
                    e.answer(peer);
                    continue;
                }
            }
            self.explaining.push_front(e);
            return;
        }
    }

    fn flow_to_peer(&self, query: &FlowQuery, e: &Explanation) -> FlowToPeer {
        let port = |ix: mpip_core::ids::PortIx| {
            self.config.ports.get(usize::from(ix.0)).map_or_else(String::new, |p| p.name.clone())
        };
        // Else what the workers tell is of a question that was given up.
        let watched = e.watched && query.watch_ms > 0;
        FlowToPeer {
            name: status::peer_name(&self.config, e.peer).to_owned(),
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
            recovered: e.recovered,
            watched_ms: if e.watched { query.watch_ms } else { 0 },
            last_paths: e.last.iter().filter(|_| watched).map(|id| id.0).collect(),
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
                    left_out: p.left_out.map(|why| {
                        match why {
                            WhyOut::Lossy => "lossy",
                            WhyOut::Far => "far",
                            WhyOut::Little => "little",
                        }
                        .to_owned()
                    }),
                    watched_packets: if watched { p.went } else { 0 },
                    next_packets: p.picks,
                })
                .collect(),
        }
    }
}
