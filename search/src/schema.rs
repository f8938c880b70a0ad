//! The index's fields and how a message becomes a document. The schema itself is the version: a folder whose schema
//! differs is dropped and rebuilt.

use tantivy::TantivyDocument;
use tantivy::schema::{
    BytesOptions, Field, IndexRecordOption, NumericOptions, Schema, TextFieldIndexing, TextOptions,
};
use uuid::Uuid;

use crate::text::tokenizer;

pub(crate) const CONVERSATION: &str = "conversation";
pub(crate) const SEQUENCE: &str = "sequence";
pub(crate) const CREATED_AT: &str = "created_at";

/// One message as the index takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexDoc {
    /// The conversation it is in.
    pub conversation: Uuid,
    /// Its sequence number there, from 1.
    pub sequence_number: u64,
    /// The shard that owns the conversation.
    pub shard: u32,
    /// The message's id.
    pub message_id: Uuid,
    /// Who sent it.
    pub sender: Uuid,
    /// When, in milliseconds since 1970 UTC.
    pub created_at_ms: i64,
    /// What is searched: the content of a text, the caption of media. Indexed, never stored.
    pub text: String,
}

/// Handles of the fields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields {
    pub(crate) conversation: Field,
    pub(crate) sequence: Field,
    pub(crate) message: Field,
    pub(crate) sender: Field,
    pub(crate) created_at: Field,
    pub(crate) text: Field,
    pub(crate) shard: Field,
}

pub(crate) fn schema() -> (Schema, Fields) {
    let mut builder = Schema::builder();
    let id = BytesOptions::default().set_indexed();
    let value = NumericOptions::default().set_fast();
    let text = TextOptions::default().set_indexing_options(
        TextFieldIndexing::default()
            .set_tokenizer(tokenizer::NAME)
            .set_index_option(IndexRecordOption::WithFreqsAndPositions)
            // Nothing is ranked by length: newest first.
            .set_fieldnorms(false),
    );
    let fields = Fields {
        conversation: builder.add_bytes_field(CONVERSATION, id.clone().set_fast()),
        sequence: builder.add_u64_field(SEQUENCE, value.clone()),
        message: builder.add_bytes_field("message", id.clone()),
        sender: builder.add_bytes_field("sender", id),
        created_at: builder.add_i64_field(CREATED_AT, value),
        text: builder.add_text_field("text", text),
        shard: builder.add_u64_field("shard", NumericOptions::default().set_indexed()),
    };
    (builder.build(), fields)
}

impl Fields {
    pub(crate) fn document(&self, doc: &IndexDoc) -> TantivyDocument {
        let mut out = TantivyDocument::new();
        out.add_bytes(self.conversation, doc.conversation.as_bytes());
        out.add_u64(self.sequence, doc.sequence_number);
        out.add_bytes(self.message, doc.message_id.as_bytes());
        out.add_bytes(self.sender, doc.sender.as_bytes());
        out.add_i64(self.created_at, doc.created_at_ms);
        out.add_text(self.text, &doc.text);
        out.add_u64(self.shard, u64::from(doc.shard));
        out
    }
}
