//! What a master wants done: plain data, in order, performed by the owner.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tepui_model::allocation::{Fact, Round};
use tepui_model::authorization::ClassKey;
use tepui_model::id::{FrameworkId, Uuid};
use tepui_proto::v1::{self, master, scheduler};
use tepui_proto::{Message as _, Wire, link, put};

use crate::event::{CallId, Entry, SessionKey, StoreId, StreamKey};

/// Answer to a call. The owner turns it into a status and a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// 202, no body.
    Accepted,
    /// 200, no body.
    Ok,
    /// 400 with a text.
    BadRequest(String),
    /// 403 with a text.
    Forbidden(String),
    /// 404 with a text.
    NotFound(String),
    /// 409 with a text.
    Conflict(String),
    /// 501 with a text.
    NotImplemented(String),
    /// 503 with a text.
    Unavailable(String),
    /// The class that the authorization rested on is not the object's class any more: authorize again.
    Again(ClassKey),
}

/// Everything that the owner has to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    /// Answer a call.
    Reply {
        /// Which call.
        call: CallId,
        /// With what.
        reply: Reply,
    },
    /// Answer a SUBSCRIBE with 200 and a stream. Its events follow.
    OpenStream {
        /// Which call.
        call: CallId,
        /// Its number from now on.
        stream: StreamKey,
        /// Value of the `Mesos-Stream-Id` header.
        stream_id: Uuid,
        /// Whose stream it is; `None` if only an ERROR follows.
        framework: Option<FrameworkId>,
    },
    /// An event for a scheduler.
    ToScheduler {
        /// On which stream.
        stream: StreamKey,
        /// The event.
        event: Wire<scheduler::Event>,
    },
    /// OFFERS for a scheduler.
    Offers {
        /// On which stream.
        stream: StreamKey,
        /// The offers.
        offers: Offers,
    },
    /// End a scheduler's stream after what was sent. No `StreamClosed` is expected for it.
    CloseStream {
        /// Which stream.
        stream: StreamKey,
    },

    /// A frame for an agent. The link puts its session number on.
    ToAgent {
        /// Which session.
        session: SessionKey,
        /// The frame.
        frame: Wire<link::LinkFrame>,
    },
    /// Close a session after what was sent. No `AgentClosed` is expected for it.
    CloseAgent {
        /// Which session.
        session: SessionKey,
    },

    /// News for the allocator, in order.
    Facts(Vec<Fact>),
    /// Ask the allocator for proposals. At most one round is open.
    Allocate {
        /// Number for the answer.
        number: u64,
        /// The round.
        round: Round,
    },

    /// Write a batch, all or nothing, under this leader's epoch.
    Store {
        /// Number for the answer.
        id: StoreId,
        /// Entries to write.
        puts: Vec<Entry>,
        /// Keys to remove.
        deletes: Vec<String>,
    },

    /// An event for the subscribers of the operator API.
    ToOperators {
        /// Who may see it: the class of the object it is about.
        class: Option<ClassKey>,
        /// The event.
        event: Box<Wire<master::Event>>,
    },

    /// The leader cannot go on: end the process.
    StepDown {
        /// Why.
        reason: String,
    },
}

impl Effect {
    /// A frame with this body.
    pub(crate) fn to_agent(session: SessionKey, body: link::link_frame::Body) -> Self {
        Self::ToAgent {
            session,
            frame: Wire(link::LinkFrame {
                session: 0,
                must_understand: false,
                body: Some(body),
            }),
        }
    }
}

/// Offers of one event, each as the bytes of a `mesos.v1.Offer`: rows keep the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offers(pub Vec<Bytes>);

impl Offers {
    /// The event as a message.
    pub fn event(&self) -> scheduler::Event {
        let offer = |bytes: &Bytes| v1::Offer::decode(bytes.clone()).expect("encoded here");
        scheduler::Event {
            r#type: Some(scheduler::event::Type::Offers as i32),
            offers: Some(scheduler::event::Offers {
                offers: self.0.iter().map(offer).collect(),
            }),
            ..Default::default()
        }
    }

    /// The event's bytes.
    pub fn event_bytes(&self) -> Vec<u8> {
        // Fields of `Event`, and the one of `Event.Offers`.
        const TYPE: u32 = 1;
        const OFFERS: u32 = 3;
        const OFFER: u32 = 1;
        let length = self
            .0
            .iter()
            .map(|offer| put::framed_len(OFFER, offer.len()))
            .sum();
        let mut out = Vec::with_capacity(length + 16);
        put::varint(TYPE, scheduler::event::Type::Offers as u64, &mut out);
        put::head(OFFERS, length, &mut out);
        for offer in &self.0 {
            put::bytes(OFFER, offer, &mut out);
        }
        out
    }
}

/// Bytes of a message, for rows.
pub(crate) fn bytes_of(message: &impl prost::Message) -> Bytes {
    message.encode_to_vec().into()
}
