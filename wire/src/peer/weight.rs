//! What a request or an answer weighs on its way between nodes, bytes: near enough to bound memory and messages, at no cost worth
//! counting. What is exact is known only once it is encoded.

use std::sync::Arc;

use super::{PeerAnswer, PeerRequest};
use crate::command::{
    Answer, Command, ConversationCommand, LoggedEntry, Publish, SearchCommand, SessionInfo, TopicCommand,
    UserCommand,
};
use crate::proto::chat::send_request::Content;
use prost::Message as _;

/// Of what has no content of a client's: ids, names, an id's path.
pub const SMALL: usize = 256;

/// What the request before shared with others of its frame, by address.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shared(usize);

/// Of a request behind another one.
pub fn request(request: &PeerRequest, shared: &mut Shared) -> usize {
    let content = match &request.command {
        Command::Account(_) => 4 * SMALL,
        Command::User(UserCommand::Offer { entry, .. }) => once(entry, entry_bytes(entry), shared),
        Command::User(UserCommand::Note(event)) => event.encoded_len(),
        Command::User(UserCommand::Deliver { publish, targets, .. }) => {
            let targets = targets
                .iter()
                .map(|target| 32 + 5 * target.subscription_ids.len());
            targets.sum::<usize>() + once(publish, publish_bytes(publish), shared)
        }
        Command::User(UserCommand::Share { publish, filter, .. }) => {
            filter.len() + once(publish, publish_bytes(publish), shared)
        }
        Command::User(UserCommand::Kick { client_id, .. }) => client_id.as_deref().map_or(0, str::len),
        Command::User(
            UserCommand::Receipt { .. } | UserCommand::CredentialEnded { .. } | UserCommand::Sessions,
        ) => 0,
        Command::Conversation(ConversationCommand::Send(send)) => match &send.content {
            Content::Text(text) => text.len(),
            Content::Ciphertext(bytes) => bytes.len(),
            Content::Media(media) => media.encoded_len(),
        },
        Command::Conversation(ConversationCommand::CreateGroup {
            members,
            name,
            description,
            ..
        }) => {
            let members = members.iter().map(|member| 32 + member.name.len());
            members.sum::<usize>() + name.len() + description.len()
        }
        Command::Conversation(_) => SMALL,
        Command::Topic(TopicCommand::Publish(publish, _)) => once(publish, publish_bytes(publish), shared),
        Command::Topic(TopicCommand::Share { publish, filter, .. }) => {
            filter.len() + once(publish, publish_bytes(publish), shared)
        }
        Command::Topic(
            TopicCommand::Subscribe { route, .. }
            | TopicCommand::Unsubscribe { route }
            | TopicCommand::Announce { route },
        ) => route.filter.len(),
        Command::Topic(TopicCommand::Copy { routes, .. }) => {
            routes.iter().map(|route| SMALL + route.filter.len()).sum()
        }
        Command::Topic(TopicCommand::Interest { shards }) => 3 * shards.len(),
        Command::Topic(TopicCommand::List { .. } | TopicCommand::View { .. }) => SMALL,
        Command::Topic(TopicCommand::Prune { topic, keep, .. }) => topic.len() + 10 * keep.len(),
        Command::Topic(TopicCommand::Member { filter, .. } | TopicCommand::Retained { filter }) => {
            filter.len()
        }
        Command::Search(command) => match &**command {
            SearchCommand::Find(find) => 18 * find.conversations.len() + find.query.len(),
            SearchCommand::Confirmed(tails) => 32 * tails.len(),
        },
    };
    SMALL + content
}

/// Of an answer.
pub fn answer(answer: &PeerAnswer) -> usize {
    let PeerAnswer::Answer(answer) = answer else {
        return SMALL;
    };
    let content = match answer {
        Answer::History(page) => page.entries.iter().map(|entry| SMALL + entry_bytes(entry)).sum(),
        Answer::Retained(publishes) => publishes.iter().map(|publish| publish_bytes(publish)).sum(),
        Answer::Conversation(info) => {
            let members = info.members.iter().map(|(named, ..)| 96 + named.name.len());
            members.sum::<usize>() + info.last_message.as_ref().map_or(0, |entry| entry_bytes(entry))
        }
        Answer::Account(_) => 16 * SMALL,
        Answer::Status(watermarks) => 48 * watermarks.len(),
        Answer::Visible(intervals) => 24 * intervals.len(),
        Answer::Kept { gone } => 18 * gone.len(),
        Answer::Sessions(sessions) => {
            let filters =
                |session: &SessionInfo| session.filters.iter().map(|one| 4 + one.len()).sum::<usize>();
            let each = |session: &SessionInfo| 64 + session.client_id.len() + filters(session);
            sessions.iter().map(each).sum()
        }
        Answer::Found(found) => 40 * found.hits.len(),
        Answer::Refused(_)
        | Answer::Done
        | Answer::Sent(_)
        | Answer::Away
        | Answer::Confirmed(_)
        | Answer::Published { .. }
        | Answer::PublishRefused { .. } => 0,
    };
    SMALL + content
}

/// What neighbours share stands in a frame once.
fn once<T>(shared: &Arc<T>, bytes: usize, before: &mut Shared) -> usize {
    let at = Arc::as_ptr(shared).cast::<()>() as usize;
    if std::mem::replace(&mut before.0, at) == at {
        0
    } else {
        bytes
    }
}

fn entry_bytes(entry: &LoggedEntry) -> usize {
    64 + entry.encoded.len()
}

fn publish_bytes(publish: &Publish) -> usize {
    let properties = publish
        .properties
        .as_ref()
        .map_or(0, |properties| properties.encoded_len());
    64 + publish.topic.len() + publish.payload.len() + properties
}
