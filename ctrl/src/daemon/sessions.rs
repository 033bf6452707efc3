//! `mpipctl show sessions`: the workers describe their tables, a stretch at a time. Owned and read by the control loop.

use super::Control;
use super::status;
use crate::api::protocol::Answer;
use crate::api::query::{Pager, SessionKey, SessionQuery};
use crate::api::server::Refusal;
use mpip_core::engine::SessionQuery as RowQuery;
use mpip_core::engine::{Command, SessionBatch, SessionInfo};
use mpip_core::ids::{PeerIx, SessionId};
use std::sync::mpsc;
use tokio::sync::oneshot;

/// Rows of a worker's session table that are described at a time.
const SESSION_STRETCH: u32 = 512;

/// Sessions being collected for one `show sessions`.
pub(super) struct Collecting {
    pager: Pager<(PeerIx, SessionId), (u16, SessionInfo)>,
    reply: oneshot::Sender<Result<Answer, Refusal>>,
    answers: mpsc::Receiver<SessionBatch>,
    /// Workers that have not answered yet.
    outstanding: usize,
    /// Where the next stretch begins, if a worker has more.
    next: Option<u32>,
}

impl Control {
    pub(super) fn start_collecting(
        &mut self,
        query: SessionQuery,
        reply: oneshot::Sender<Result<Answer, Refusal>>,
    ) {
        match self.ask_sessions(0) {
            Some(answers) => self.collecting.push(Collecting {
                pager: Pager::new(query),
                reply,
                answers,
                outstanding: self.plane.cells().len(),
                next: None,
            }),
            None => {
                let why = "the workers take no more commands now; try again".to_owned();
                let _ = reply.send(Err(Refusal(why)));
            }
        }
    }

    fn ask_sessions(&mut self, from: u32) -> Option<mpsc::Receiver<SessionBatch>> {
        let (sender, answers) = mpsc::channel();
        let rows = RowQuery { from, rows: SESSION_STRETCH };
        self.plane.command(&Command::Sessions(rows, sender)).then_some(answers)
    }

    /// Takes what the workers have described, and asks for the next stretch.
    pub(super) fn collect_sessions(&mut self) {
        let mut going_on = Vec::new();
        for mut c in std::mem::take(&mut self.collecting) {
            if c.reply.is_closed() {
                // Nobody waits for it any more.
                continue;
            }
            while let Ok(batch) = c.answers.try_recv() {
                let worker = u16::from(batch.worker);
                for s in batch.sessions {
                    let key = SessionKey {
                        id: s.id,
                        peer: status::peer_name(&self.config, s.peer),
                        tuple: status::opener_tuple(&s),
                        state: status::session_state(s.state),
                    };
                    c.pager.offer(&key, (s.peer, s.id), (worker, s));
                }
                c.next = c.next.or(batch.next);
                c.outstanding -= 1;
            }
            if c.outstanding > 0 {
                going_on.push(c);
            } else if let Some(from) = c.next.take() {
                if let Some(answers) = self.ask_sessions(from) {
                    c.answers = answers;
                    c.outstanding = self.plane.cells().len();
                    going_on.push(c);
                } else {
                    let why = "the workers take no more commands now; try again".to_owned();
                    let _ = c.reply.send(Err(Refusal(why)));
                }
            } else {
                self.finish_collecting(c);
            }
        }
        self.collecting = going_on;
    }

    fn finish_collecting(&self, c: Collecting) {
        let sources = self.sources(self.plane.now());
        let page = c.pager.page(|(worker, s)| sources.session(worker, &s));
        let _ = c.reply.send(Ok(Answer::Sessions(page)));
    }
}
