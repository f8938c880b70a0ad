//! What operators are told of sessions.

use super::{Result, all, optional, uuid, uuid_out};
use crate::command::{LiveInfo, SessionInfo};
use crate::proto::peer;

pub(super) fn sessions_out(sessions: &[SessionInfo]) -> peer::Sessions {
    peer::Sessions {
        sessions: sessions.iter().map(session_out).collect(),
    }
}

fn session_out(session: &SessionInfo) -> peer::SessionInfo {
    let live = |live: &LiveInfo| peer::LiveInfo {
        since: live.since,
        is_v5: live.is_v5,
        via: live.via.map(uuid_out).unwrap_or_default(),
    };
    peer::SessionInfo {
        client_id: session.client_id.to_string(),
        live: session.live.as_ref().map(live),
        disconnected_at: session.disconnected_at,
        expiry: session.expiry,
        filters: session.filters.clone(),
        subscriptions: session.subscriptions,
        owed: session.owed,
        owed_bytes: session.owed_bytes,
    }
}

pub(super) fn sessions_in(sessions: peer::Sessions) -> Result<Vec<SessionInfo>> {
    all(sessions.sessions, |session| {
        let live = |live: peer::LiveInfo| -> Result<LiveInfo> {
            Ok(LiveInfo {
                since: live.since,
                is_v5: live.is_v5,
                via: optional(&live.via, uuid)?,
            })
        };
        Ok(SessionInfo {
            client_id: session.client_id.into(),
            live: session.live.map(live).transpose()?,
            disconnected_at: session.disconnected_at,
            expiry: session.expiry,
            filters: session.filters,
            subscriptions: session.subscriptions,
            owed: session.owed,
            owed_bytes: session.owed_bytes,
        })
    })
}
