//! Splits text into pieces (words, single characters of scripts written without spaces, symbols), each with its place
//! in the original text, and makes index terms of them. Works on grapheme clusters, so no mark is parted from its base.

use std::ops::Range;

use unicode_properties::UnicodeEmoji;
use unicode_script::{Script, UnicodeScript};
use unicode_segmentation::UnicodeSegmentation;

use super::{MAX_TERM_CHARS, fold::fold};

/// What a piece is; decides how it meets its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A run of letters and digits of a script that puts spaces between words.
    Word,
    /// One character of a script written without spaces (Chinese, Japanese, Thai, …) or agglutinating as Korean does.
    Unit,
    /// An emoji.
    Symbol,
}

/// One piece of text; its position is its index in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) kind: Kind,
    /// Bytes of the original text.
    pub(crate) range: Range<usize>,
    /// The folded form, never empty.
    pub(crate) text: String,
}

impl Piece {
    /// Whether `next` continues the same run of units, so that both make a pair.
    pub(crate) fn pairs_with(&self, next: &Piece) -> bool {
        self.kind == Kind::Unit && next.kind == Kind::Unit && self.range.end == next.range.start
    }

    /// The term of two neighbouring units.
    pub(crate) fn pair(&self, next: &Piece) -> String {
        let mut pair = String::with_capacity(self.text.len() + next.text.len());
        pair.push_str(&self.text);
        pair.push_str(&next.text);
        pair
    }
}

/// The pieces of `text`, in order.
pub(crate) fn pieces(text: &str) -> Vec<Piece> {
    let mut out = Vec::new();
    let mut word: Option<Range<usize>> = None;
    let mut push = |kind, range: Range<usize>| {
        let folded = fold(&text[range.clone()], MAX_TERM_CHARS);
        if !folded.is_empty() {
            out.push(Piece {
                kind,
                range,
                text: folded,
            });
        }
    };
    for (start, cluster) in text.grapheme_indices(true) {
        let range = start..start + cluster.len();
        let kind = cluster.chars().next().and_then(kind_of);
        if kind == Some(Kind::Word) {
            word = Some(word.map_or(range.start, |w| w.start)..range.end);
            continue;
        }
        if let Some(word) = word.take() {
            push(Kind::Word, word);
        }
        if let Some(kind) = kind {
            push(kind, range);
        }
    }
    if let Some(word) = word {
        push(Kind::Word, word);
    }
    out
}

/// The index terms of `pieces` with their positions: every piece by itself, and each two neighbouring units as a
/// pair at the first one's position. The single units make one-character queries answerable.
pub(crate) fn terms(pieces: &[Piece], mut each: impl FnMut(usize, Range<usize>, String)) {
    for (position, piece) in pieces.iter().enumerate() {
        each(position, piece.range.clone(), piece.text.clone());
        if let Some(next) = pieces.get(position + 1)
            && piece.pairs_with(next)
        {
            each(position, piece.range.start..next.range.end, piece.pair(next));
        }
    }
}

fn kind_of(c: char) -> Option<Kind> {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric().then_some(Kind::Word);
    }
    if c.is_alphanumeric() {
        return Some(if is_unit(c) { Kind::Unit } else { Kind::Word });
    }
    c.is_emoji_char().then_some(Kind::Symbol)
}

fn is_unit(c: char) -> bool {
    use Script::*;
    if c < '\u{0E00}' {
        return false;
    }
    match c.script() {
        Han | Hiragana | Katakana | Bopomofo | Hangul | Yi => true,
        Thai | Lao | Khmer | Myanmar | Tai_Le | New_Tai_Lue | Tai_Tham | Tai_Viet => !c.is_numeric(),
        // The Japanese length mark and its like belong to no one script.
        Common | Inherited => {
            let scripts = c.script_extension();
            !scripts.is_common() && !scripts.is_inherited() && scripts.contains_script(Katakana)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        pieces(text).into_iter().map(|p| p.text).collect()
    }

    fn all_terms(text: &str) -> Vec<(usize, String)> {
        let mut out = Vec::new();
        terms(&pieces(text), |position, _, term| out.push((position, term)));
        out
    }

    #[test]
    fn words_are_split_at_whatever_is_neither_letter_nor_digit() {
        assert_eq!(
            words("Hello, World! foo_bar 3.14"),
            ["hello", "world", "foo", "bar", "3", "14"]
        );
        assert_eq!(
            words("l'avion Müller-Lüdenscheidt"),
            ["l", "avion", "muller", "ludenscheidt"]
        );
        assert_eq!(words("हिन्दी में"), ["हिन्दी", "में"]);
        assert!(words(" \t\u{0}…—。、！").is_empty());
    }

    #[test]
    fn chinese_japanese_korean_and_thai_become_units_and_pairs() {
        assert_eq!(
            all_terms("我爱rust"),
            [
                (0, "我".into()),
                (0, "我爱".into()),
                (1, "爱".into()),
                (2, "rust".into())
            ]
        );
        assert_eq!(words("コーヒー、です"), ["コ", "ー", "ヒ", "ー", "で", "す"]);
        assert_eq!(words("학교"), ["학", "교"]);
        assert_eq!(words("น้ำมัน"), [words("น้ำ"), words("มั"), words("น")].concat());
    }

    #[test]
    fn punctuation_parts_a_run() {
        let terms = all_terms("今天。明天");
        assert!(!terms.iter().any(|(_, term)| term == "天明"));
    }

    #[test]
    fn each_emoji_is_a_symbol_and_skin_tones_are_one() {
        assert_eq!(words("ok👍🏽👍 🇩🇪"), ["ok", "👍", "👍", "🇩🇪"]);
        assert_eq!(pieces("👨‍👩‍👧").len(), 1);
    }

    #[test]
    fn a_long_word_is_cut_in_text_and_query_alike() {
        let long = "x".repeat(10_000);
        assert_eq!(words(&long), ["x".repeat(MAX_TERM_CHARS)]);
    }

    #[test]
    fn ranges_are_those_of_the_original() {
        let text = "Ünïcödé 東京!";
        for piece in pieces(text) {
            assert_eq!(fold(&text[piece.range.clone()], MAX_TERM_CHARS), piece.text);
        }
    }
}
