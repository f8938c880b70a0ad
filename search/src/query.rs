//! The plain query language: words that must all occur, "…" for a phrase, nothing else. Any input is a query; only its
//! size can be refused. Does not touch the index.

use crate::{
    error::Error,
    text::{Kind, Piece, pieces},
};

/// Longest query, in code points: more than anybody types, little enough to analyse on a request's thread.
pub const MAX_QUERY_CHARS: usize = 512;

/// Most terms of a query: each costs a look-up in every segment of the index.
pub const MAX_QUERY_TERMS: usize = 128;

/// Characters that join two words into one name when they stand alone between them: `a@b.org`, `foo_bar`, `12:30`.
const JOINERS: [&str; 9] = [".", "_", "'", "’", "-", "@", "/", ":", "·"];

/// Quotation marks as phones and keyboards produce them.
const QUOTES: [char; 5] = ['"', '“', '”', '„', '‟'];

/// What somebody searches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub(crate) groups: Vec<Group>,
    blank: bool,
}

/// Terms that must occur together, each at its distance from the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) terms: Vec<(usize, String)>,
    /// How many pieces of text it covers.
    pub(crate) span: usize,
}

impl Query {
    /// Reads what a user typed.
    ///
    /// # Errors
    /// [`Error::QueryTooLong`] above [`MAX_QUERY_CHARS`] code points or [`MAX_QUERY_TERMS`] terms.
    pub fn parse(input: &str) -> Result<Self, Error> {
        // A code point has at most four bytes: what is longer need not be counted.
        if input.len() > 4 * MAX_QUERY_CHARS || input.chars().count() > MAX_QUERY_CHARS {
            return Err(Error::QueryTooLong);
        }
        let parts: Vec<&str> = input.split(QUOTES).collect();
        let mut groups: Vec<Group> = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            // Every second part is inside quotes, except behind a quote that is never closed.
            let quoted = index % 2 == 1 && index + 1 < parts.len();
            let pieces = pieces(part);
            let ends = if quoted {
                vec![pieces.len()]
            } else {
                joined(part, &pieces)
            };
            let mut start = 0;
            for end in ends {
                if let Some(group) = Group::of(&pieces[start..end])
                    && !groups.contains(&group)
                {
                    groups.push(group);
                }
                start = end;
            }
        }
        if groups.iter().map(|group| group.terms.len()).sum::<usize>() > MAX_QUERY_TERMS {
            return Err(Error::QueryTooLong);
        }
        Ok(Self {
            groups,
            blank: input.trim().is_empty(),
        })
    }

    /// Whether nothing was typed: such a query finds everything that the filters let through.
    pub fn is_blank(&self) -> bool {
        self.blank
    }

    /// Whether something was typed that holds nothing to search for, like `!!!`: it finds nothing.
    pub(crate) fn finds_nothing(&self) -> bool {
        self.groups.is_empty() && !self.blank
    }
}

/// Where groups end outside quotes: pieces that touch, or have one joiner between them, belong together.
fn joined(text: &str, pieces: &[Piece]) -> Vec<usize> {
    let mut ends = Vec::new();
    for (index, pair) in pieces.windows(2).enumerate() {
        let gap = &text[pair[0].range.end..pair[1].range.start];
        let words = pair[0].kind == Kind::Word && pair[1].kind == Kind::Word;
        let symbol = pair[0].kind == Kind::Symbol || pair[1].kind == Kind::Symbol;
        let together = if gap.is_empty() {
            !symbol
        } else {
            words && JOINERS.contains(&gap)
        };
        if !together {
            ends.push(index + 1);
        }
    }
    if !pieces.is_empty() {
        ends.push(pieces.len());
    }
    ends
}

impl Group {
    /// A run of units is asked for by its pairs, a lone one by itself.
    fn of(pieces: &[Piece]) -> Option<Self> {
        let mut terms = Vec::new();
        let mut in_run = false;
        for (offset, piece) in pieces.iter().enumerate() {
            match pieces.get(offset + 1) {
                Some(next) if piece.pairs_with(next) => {
                    terms.push((offset, piece.pair(next)));
                    in_run = true;
                }
                _ if in_run => in_run = false,
                _ => terms.push((offset, piece.text.clone())),
            }
        }
        (!terms.is_empty()).then_some(Self {
            terms,
            span: pieces.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(input: &str) -> Vec<Vec<String>> {
        let query = Query::parse(input).unwrap();
        query
            .groups
            .into_iter()
            .map(|g| g.terms.into_iter().map(|(_, term)| term).collect())
            .collect()
    }

    #[test]
    fn words_stand_alone_and_quotes_make_a_phrase() {
        assert_eq!(groups("Hello big world"), [["hello"], ["big"], ["world"]]);
        assert_eq!(
            groups("\"Hello big\" world"),
            [vec!["hello", "big"], vec!["world"]]
        );
        assert_eq!(groups("„guten Tag“ du"), [vec!["guten", "tag"], vec!["du"]]);
    }

    #[test]
    fn a_quote_never_closed_is_no_quote() {
        assert_eq!(groups("hello \"big world"), [["hello"], ["big"], ["world"]]);
        assert_eq!(groups("\"a b\" \"c d"), [vec!["a", "b"], vec!["c"], vec!["d"]]);
    }

    #[test]
    fn names_and_runs_stay_together() {
        assert_eq!(groups("ann@example.org"), [["ann", "example", "org"]]);
        assert_eq!(groups("hello,world"), [["hello"], ["world"]]);
        assert_eq!(groups("東京駅"), [["東京", "京駅"]]);
        assert_eq!(groups("猫"), [["猫"]]);
        assert_eq!(groups("使用rust语言"), [["使用", "rust", "语言"]]);
        assert_eq!(groups("hi👍"), [["hi"], ["👍"]]);
    }

    #[test]
    fn the_syntax_of_the_engine_means_nothing() {
        assert_eq!(
            groups("text:secret OR -x +y z* ~2 [a TO b] {} \\ ^3"),
            [
                vec!["text", "secret"],
                vec!["or"],
                vec!["x"],
                vec!["y"],
                vec!["z"],
                vec!["2"],
                vec!["a"],
                vec!["to"],
                vec!["b"],
                vec!["3"]
            ]
        );
    }

    #[test]
    fn repeated_words_count_once() {
        assert_eq!(groups("a a A á"), [["a"]]);
    }

    #[test]
    fn what_is_too_long_is_refused_and_what_is_empty_is_told_apart() {
        assert!(matches!(
            Query::parse(&"x ".repeat(5_000)),
            Err(Error::QueryTooLong)
        ));
        assert!(Query::parse(&"x".repeat(MAX_QUERY_CHARS)).is_ok());
        assert!(matches!(
            Query::parse(&"x".repeat(MAX_QUERY_CHARS + 1)),
            Err(Error::QueryTooLong)
        ));
        let many: String = (0..=MAX_QUERY_TERMS).map(|n| format!("{n:x} ")).collect();
        assert!(matches!(Query::parse(&many), Err(Error::QueryTooLong)));
        assert!(Query::parse(" \u{3000}\n").unwrap().is_blank());
        assert!(Query::parse("?!\u{0}").unwrap().finds_nothing());
    }
}
