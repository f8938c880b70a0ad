//! Commands about search, and their answers.

use super::{DecodeError, Result, all, conversation, need, optional, user};
use crate::ids::UserId;
use crate::proto::peer::{self, search_command};
use crate::search_command::{Find, Found, FoundAt, SearchCommand};

pub(super) fn command_out(command: &SearchCommand) -> peer::SearchCommand {
    use search_command::Command as Out;
    let command = match command {
        SearchCommand::Find(find) => Out::Find(peer::Find {
            by: find.by.to_bytes(),
            conversations: find.conversations.iter().map(|id| id.to_bytes()).collect(),
            query: find.query.clone(),
            sender: find.sender.map(UserId::to_bytes).unwrap_or_default(),
            after_ms: find.after_ms,
            before_ms: find.before_ms,
            limit: find.limit,
            cursor: find.cursor.clone(),
        }),
        SearchCommand::Confirmed(all) => Out::Confirmed(peer::ConfirmedTails {
            tails: all
                .iter()
                .map(|(id, up_to)| peer::ConfirmedTail {
                    conversation: id.to_bytes(),
                    up_to: *up_to,
                })
                .collect(),
        }),
    };
    peer::SearchCommand {
        command: Some(command),
    }
}

pub(super) fn command_in(command: peer::SearchCommand) -> Result<SearchCommand> {
    use search_command::Command as In;
    Ok(match need(command.command, "search command")? {
        In::Find(find) => SearchCommand::Find(Find {
            by: user(&find.by)?,
            conversations: all(find.conversations, |id| conversation(&id))?,
            query: find.query,
            sender: optional(&find.sender, user)?,
            after_ms: find.after_ms,
            before_ms: find.before_ms,
            limit: find.limit,
            cursor: find.cursor,
        }),
        In::Confirmed(confirmed) => SearchCommand::Confirmed(all(confirmed.tails, |tail| {
            Ok((conversation(&tail.conversation)?, tail.up_to))
        })?),
    })
}

pub(super) fn found_out(found: &Found) -> peer::Found {
    let hit = |hit: &FoundAt| peer::FoundAt {
        conversation: hit.conversation.to_bytes(),
        sequence_number: hit.sequence_number,
        created_at_ms: hit.created_at_ms,
    };
    peer::Found {
        hits: found.hits.iter().map(hit).collect(),
        more: found.more,
        partial: found.partial,
        indexed_up_to_ms: found.indexed_up_to_ms,
    }
}

pub(super) fn found_in(found: peer::Found) -> Result<Found> {
    Ok(Found {
        hits: all(found.hits, |hit| {
            Ok::<_, DecodeError>(FoundAt {
                conversation: conversation(&hit.conversation)?,
                sequence_number: hit.sequence_number,
                created_at_ms: hit.created_at_ms,
            })
        })?,
        more: found.more,
        partial: found.partial,
        indexed_up_to_ms: found.indexed_up_to_ms,
    })
}
