//! Commands of conversations' and users' homes, and what conversations answer.

use std::sync::Arc;

use super::topics::qos;
use super::{
    DecodeError, FrameWriter, Result, Shared, all, conversation, entry_in, entry_out, hash, message,
    named_in, named_out, need, optional, session, user, uuid, uuid_out,
};
use crate::command::{
    ConversationCommand, ConversationInfo, HistoryAt, Position, Send, SendIdentity, Sent, Target,
    UserCommand, Watermark,
};
use crate::ids::MessageId;
use crate::proto::chat;
use crate::proto::peer::{self, conversation_command, history, position, send, user_command};

pub(super) fn watermark_out(watermark: &Watermark) -> peer::Watermark {
    peer::Watermark {
        user: watermark.user.to_bytes(),
        delivered_up_to: watermark.delivered_up_to,
        read_up_to: watermark.read_up_to,
    }
}

pub(super) fn watermark_in(watermark: peer::Watermark) -> Result<Watermark> {
    Ok(Watermark {
        user: user(&watermark.user)?,
        delivered_up_to: watermark.delivered_up_to,
        read_up_to: watermark.read_up_to,
    })
}

pub(super) fn sent_out(sent: &Sent) -> peer::Sent {
    peer::Sent {
        message_id: sent.message_id.to_bytes(),
        sequence_number: sent.sequence_number,
        created_at: sent.created_at,
        duplicate: sent.duplicate,
    }
}

pub(super) fn sent_in(sent: &peer::Sent) -> Result<Sent> {
    Ok(Sent {
        message_id: message(&sent.message_id)?,
        sequence_number: sent.sequence_number,
        created_at: sent.created_at,
        duplicate: sent.duplicate,
    })
}

pub(super) fn info_out(info: &ConversationInfo) -> peer::ConversationInfo {
    let member = |(user, role, since): &(crate::command::Named, chat::Role, u64)| peer::MemberInfo {
        user: Some(named_out(user)),
        role: *role as i32,
        since: *since,
    };
    peer::ConversationInfo {
        id: info.id.to_bytes(),
        group: info.group,
        name: info.name.clone(),
        description: info.description.clone(),
        members: info.members.iter().map(member).collect(),
        watermarks: info.watermarks.iter().map(watermark_out).collect(),
        last_sequence: info.last_sequence,
        last_message: info.last_message.as_deref().map(entry_out).unwrap_or_default(),
        created_at: info.created_at,
        created: info.created,
    }
}

pub(super) fn info_in(info: peer::ConversationInfo) -> Result<ConversationInfo> {
    let last_message = match info.last_message.is_empty() {
        true => None,
        false => Some(Arc::new(entry_in(info.last_message)?)),
    };
    Ok(ConversationInfo {
        id: conversation(&info.id)?,
        group: info.group,
        name: info.name,
        description: info.description,
        members: all(info.members, |member| {
            Ok((named_in(member.user)?, role(member.role)?, member.since))
        })?,
        watermarks: all(info.watermarks, watermark_in)?,
        last_sequence: info.last_sequence,
        last_message,
        created_at: info.created_at,
        created: info.created,
    })
}

fn role(role: i32) -> Result<chat::Role> {
    chat::Role::try_from(role).map_err(|_| DecodeError("role"))
}

fn position_out(position: &Position) -> peer::Position {
    let position = Some(match position {
        Position::Sequence(sequence) => position::Position::Sequence(*sequence),
        Position::Message(id) => position::Position::Message(id.to_bytes()),
    });
    peer::Position { position }
}

fn position_in(position: peer::Position) -> Result<Position> {
    Ok(match need(position.position, "position")? {
        position::Position::Sequence(sequence) => Position::Sequence(sequence),
        position::Position::Message(id) => Position::Message(message(&id)?),
    })
}

fn send_out(sending: &Send) -> peer::Send {
    let identity = match &sending.identity {
        SendIdentity::Client(id) => send::Identity::Client(id.to_string()),
        SendIdentity::Implicit(id) => send::Identity::Implicit(bytes::Bytes::copy_from_slice(id)),
    };
    peer::Send {
        sender: Some(named_out(&sending.sender)),
        identity: Some(identity),
        fresh: sending.fresh,
        content: Some(chat::SendRequest {
            client_message_id: String::new(),
            content_type: sending.content_type as i32,
            content: Some(sending.content.clone()),
            reply_to: sending.reply_to.map(MessageId::to_bytes).unwrap_or_default(),
        }),
        direct_with: sending.direct_with.as_ref().map(named_out),
    }
}

fn send_in(sending: peer::Send) -> Result<Send> {
    let identity = match need(sending.identity, "identity")? {
        send::Identity::Client(id) => SendIdentity::Client(id.into()),
        send::Identity::Implicit(id) => SendIdentity::Implicit(hash(&id)?),
    };
    let content = need(sending.content, "content")?;
    let content_type =
        chat::ContentType::try_from(content.content_type).map_err(|_| DecodeError("content type"))?;
    Ok(Send {
        sender: named_in(sending.sender)?,
        identity,
        fresh: sending.fresh,
        content: need(content.content, "content")?,
        content_type,
        reply_to: optional(&content.reply_to, message)?,
        direct_with: sending
            .direct_with
            .map(|named| named_in(Some(named)))
            .transpose()?,
    })
}

pub(super) fn conversation_out(command: &ConversationCommand) -> peer::ConversationCommand {
    use conversation_command::Command as Out;
    let up_to = |user: &crate::ids::UserId, up_to: &u64| peer::UpTo {
        user: user.to_bytes(),
        up_to: *up_to,
    };
    let command = match command {
        ConversationCommand::Send(sending) => Out::Send(send_out(sending)),
        ConversationCommand::OpenDirect { by, with } => Out::OpenDirect(peer::OpenDirect {
            by: Some(named_out(by)),
            with: Some(named_out(with)),
        }),
        ConversationCommand::CreateGroup {
            by,
            name,
            description,
            members,
            full_history,
        } => Out::CreateGroup(peer::CreateGroup {
            by: Some(named_out(by)),
            name: name.clone(),
            description: description.clone(),
            members: members.iter().map(named_out).collect(),
            full_history: *full_history,
        }),
        ConversationCommand::Change {
            by,
            name,
            description,
        } => Out::Change(peer::ChangeGroup {
            by: by.to_bytes(),
            name: name.clone(),
            description: description.clone(),
        }),
        ConversationCommand::AddMember { by, user } => Out::AddMember(peer::AddMember {
            by: by.to_bytes(),
            user: Some(named_out(user)),
        }),
        ConversationCommand::RemoveMember { by, user } => Out::RemoveMember(peer::RemoveMember {
            by: by.to_bytes(),
            user: user.to_bytes(),
        }),
        ConversationCommand::SetRole { by, user, role } => Out::SetRole(peer::SetRole {
            by: by.to_bytes(),
            user: user.to_bytes(),
            role: *role as i32,
        }),
        ConversationCommand::Get { by } => Out::Get(by.to_bytes()),
        ConversationCommand::History { by, at, limit } => Out::History(peer::History {
            by: by.to_bytes(),
            limit: *limit,
            at: Some(match at {
                HistoryAt::Newest => history::At::Newest(peer::Unit {}),
                HistoryAt::Before(position) => history::At::Before(position_out(position)),
                HistoryAt::After(position) => history::At::After(position_out(position)),
                HistoryAt::Around(position) => history::At::Around(position_out(position)),
            }),
        }),
        ConversationCommand::Visible { by } => Out::Visible(by.to_bytes()),
        ConversationCommand::Read { by, up_to: to } => Out::Read(up_to(by, to)),
        ConversationCommand::Delivered { user, up_to: to } => Out::Delivered(up_to(user, to)),
        ConversationCommand::Status { by } => Out::Status(by.to_bytes()),
        ConversationCommand::Block { by, user, blocked } => Out::Block(peer::Block {
            by: by.to_bytes(),
            user: user.to_bytes(),
            blocked: *blocked,
        }),
        ConversationCommand::Indexed { up_to } => Out::Indexed(*up_to),
    };
    peer::ConversationCommand {
        command: Some(command),
    }
}

pub(super) fn conversation_in(command: peer::ConversationCommand) -> Result<ConversationCommand> {
    use conversation_command::Command as In;
    Ok(match need(command.command, "conversation command")? {
        In::Send(sending) => ConversationCommand::Send(Box::new(send_in(sending)?)),
        In::OpenDirect(open) => ConversationCommand::OpenDirect {
            by: named_in(open.by)?,
            with: named_in(open.with)?,
        },
        In::CreateGroup(create) => ConversationCommand::CreateGroup {
            by: named_in(create.by)?,
            name: create.name,
            description: create.description,
            members: all(create.members, |named| named_in(Some(named)))?,
            full_history: create.full_history,
        },
        In::Change(change) => ConversationCommand::Change {
            by: user(&change.by)?,
            name: change.name,
            description: change.description,
        },
        In::AddMember(add) => ConversationCommand::AddMember {
            by: user(&add.by)?,
            user: named_in(add.user)?,
        },
        In::RemoveMember(remove) => ConversationCommand::RemoveMember {
            by: user(&remove.by)?,
            user: user(&remove.user)?,
        },
        In::SetRole(set) => ConversationCommand::SetRole {
            by: user(&set.by)?,
            user: user(&set.user)?,
            role: role(set.role)?,
        },
        In::Get(by) => ConversationCommand::Get { by: user(&by)? },
        In::History(page) => ConversationCommand::History {
            by: user(&page.by)?,
            at: match need(page.at, "place in history")? {
                history::At::Newest(_) => HistoryAt::Newest,
                history::At::Before(position) => HistoryAt::Before(position_in(position)?),
                history::At::After(position) => HistoryAt::After(position_in(position)?),
                history::At::Around(position) => HistoryAt::Around(position_in(position)?),
            },
            limit: page.limit,
        },
        In::Visible(by) => ConversationCommand::Visible { by: user(&by)? },
        In::Read(read) => ConversationCommand::Read {
            by: user(&read.user)?,
            up_to: read.up_to,
        },
        In::Delivered(delivered) => ConversationCommand::Delivered {
            user: user(&delivered.user)?,
            up_to: delivered.up_to,
        },
        In::Status(by) => ConversationCommand::Status { by: user(&by)? },
        In::Block(block) => ConversationCommand::Block {
            by: user(&block.by)?,
            user: user(&block.user)?,
            blocked: block.blocked,
        },
        In::Indexed(up_to) => ConversationCommand::Indexed { up_to },
    })
}

fn target_out(target: &Target) -> peer::Target {
    peer::Target {
        session: target.session.to_bytes(),
        qos: target.qos.into(),
        retain_as_published: target.retain_as_published,
        subscription_ids: target.subscription_ids.clone(),
    }
}

fn target_in(target: peer::Target) -> Result<Target> {
    Ok(Target {
        session: session(&target.session)?,
        qos: qos(target.qos)?,
        retain_as_published: target.retain_as_published,
        subscription_ids: target.subscription_ids,
    })
}

pub(super) fn user_out(command: &UserCommand, frame: &mut FrameWriter) -> peer::UserCommand {
    use user_command::Command as Out;
    let command = match command {
        UserCommand::Offer { entry, after } => Out::Offer(peer::Offer {
            entry: frame.entry(entry),
            after: *after,
        }),
        UserCommand::Note(event) => Out::Note((**event).clone()),
        UserCommand::Receipt {
            conversation,
            watermark,
        } => Out::Receipt(peer::Receipt {
            conversation: conversation.to_bytes(),
            watermark: Some(watermark_out(watermark)),
        }),
        UserCommand::Deliver {
            publish,
            targets,
            late,
        } => Out::Deliver(peer::Deliver {
            publish: frame.publish(publish),
            targets: targets.iter().map(target_out).collect(),
            late: *late,
        }),
        UserCommand::Share {
            publish,
            session,
            filter,
            waits,
            last,
        } => Out::Share(peer::ShareOut {
            publish: frame.publish(publish),
            session: session.to_bytes(),
            filter: filter.to_string(),
            waits: *waits,
            last: *last,
        }),
        UserCommand::CredentialEnded { credential } => Out::CredentialEnded(uuid_out(*credential)),
        UserCommand::Sessions => Out::Sessions(peer::Unit {}),
        UserCommand::Kick { client_id, forget } => Out::Kick(peer::Kick {
            client_id: client_id.as_deref().map(Into::into),
            forget: *forget,
        }),
    };
    peer::UserCommand {
        command: Some(command),
    }
}

pub(super) fn user_in(command: peer::UserCommand, shared: &Shared) -> Result<UserCommand> {
    use user_command::Command as In;
    Ok(match need(command.command, "user command")? {
        In::Offer(offer) => UserCommand::Offer {
            entry: shared.entry(offer.entry)?,
            after: offer.after,
        },
        In::Note(event) => UserCommand::Note(Box::new(event)),
        In::Receipt(receipt) => UserCommand::Receipt {
            conversation: conversation(&receipt.conversation)?,
            watermark: watermark_in(need(receipt.watermark, "watermark")?)?,
        },
        In::Deliver(deliver) => UserCommand::Deliver {
            publish: shared.publish(deliver.publish)?,
            targets: all(deliver.targets, target_in)?,
            late: deliver.late,
        },
        In::Share(share) => UserCommand::Share {
            publish: shared.publish(share.publish)?,
            session: session(&share.session)?,
            filter: share.filter.into(),
            waits: share.waits,
            last: share.last,
        },
        In::CredentialEnded(credential) => UserCommand::CredentialEnded {
            credential: uuid(&credential)?,
        },
        In::Sessions(_) => UserCommand::Sessions,
        In::Kick(kick) => UserCommand::Kick {
            client_id: kick.client_id.map(Into::into),
            forget: kick.forget,
        },
    })
}
