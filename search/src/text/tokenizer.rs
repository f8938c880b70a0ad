//! The analysis as a Tantivy tokenizer. No rules of its own.

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};

use super::{pieces, terms};

/// Name under which the schema knows the analysis. A change of the analysis needs a new name: the schema then differs
/// and the index is rebuilt.
pub(crate) const NAME: &str = "godwit_text_1";

/// Longest text that is indexed, in bytes: above any message's limit, and a bound should that be raised.
const MAX_TEXT_BYTES: usize = 256 * 1024;

#[derive(Clone, Default)]
pub(crate) struct MessageTokenizer;

pub(crate) struct Tokens {
    tokens: std::vec::IntoIter<Token>,
    current: Token,
}

impl Tokenizer for MessageTokenizer {
    type TokenStream<'a> = Tokens;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Tokens {
        let text = &text[..text.floor_char_boundary(MAX_TEXT_BYTES)];
        let pieces = pieces(text);
        let mut tokens = Vec::with_capacity(pieces.len());
        terms(&pieces, |position, range, text| {
            tokens.push(Token {
                offset_from: range.start,
                offset_to: range.end,
                position,
                text,
                position_length: 1,
            });
        });
        Tokens {
            tokens: tokens.into_iter(),
            current: Token::default(),
        }
    }
}

impl TokenStream for Tokens {
    fn advance(&mut self) -> bool {
        match self.tokens.next() {
            Some(token) => {
                self.current = token;
                true
            }
            None => false,
        }
    }

    fn token(&self) -> &Token {
        &self.current
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.current
    }
}
