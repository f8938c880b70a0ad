//! Folding: the form in which a word is compared. NFKC, lower case, and without the marks that people leave out
//! when they type a query. Does not split text.

use unicode_normalization::UnicodeNormalization;
use unicode_script::{Script, UnicodeScript};

/// The form in which `word` is indexed and looked up; may be empty.
pub(crate) fn fold(word: &str, max_chars: usize) -> String {
    if word.is_ascii() {
        return word
            .chars()
            .take(max_chars)
            .map(|c| c.to_ascii_lowercase())
            .collect();
    }
    let mut out = String::with_capacity(word.len());
    let mut base = ' ';
    for decomposed in word.nfkd() {
        for c in decomposed.to_lowercase() {
            if is_ignorable(c) || is_folded_mark(base, c) {
                continue;
            }
            if !is_combining(c) {
                base = c;
            }
            match spelled_out(c) {
                Some(letters) => out.push_str(letters),
                None => out.push(c),
            }
        }
    }
    out.nfc().take(max_chars).collect()
}

/// Letters that do not decompose but that many keyboards lack.
fn spelled_out(c: char) -> Option<&'static str> {
    Some(match c {
        'ß' => "ss",
        'æ' => "ae",
        'œ' => "oe",
        'ø' => "o",
        'đ' | 'ð' => "d",
        'þ' => "th",
        'ł' => "l",
        'ħ' => "h",
        'ı' => "i",
        'ς' => "σ",
        _ => return None,
    })
}

/// Format characters: joiners, variation selectors, soft hyphen, tatweel, skin tones.
fn is_ignorable(c: char) -> bool {
    matches!(c,
        '\u{00AD}' | '\u{0640}' | '\u{200B}'..='\u{200F}' | '\u{2060}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}'
        | '\u{1F3FB}'..='\u{1F3FF}')
}

fn is_combining(c: char) -> bool {
    unicode_normalization::char::is_combining_mark(c)
}

/// Whether the mark `c` on `base` is left out: accents on Latin and Greek, the dots of Russian ё, Arabic and Hebrew
/// vowel points. Marks that make another letter elsewhere (kana, Indic and Thai vowels, й) stay.
fn is_folded_mark(base: char, c: char) -> bool {
    match c {
        '\u{0300}'..='\u{036F}' => match base.script() {
            Script::Latin | Script::Greek => true,
            Script::Cyrillic => base == 'е' && c == '\u{0308}',
            _ => false,
        },
        '\u{0591}'..='\u{05BD}'
        | '\u{05BF}'
        | '\u{05C1}'
        | '\u{05C2}'
        | '\u{05C4}'
        | '\u{05C5}'
        | '\u{05C7}' => true,
        '\u{064B}'..='\u{065F}' | '\u{0670}' => true,
        '\u{1AB0}'..='\u{1AFF}' | '\u{1DC0}'..='\u{1DFF}' | '\u{20D0}'..='\u{20FF}' => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::fold;

    fn folded(word: &str) -> String {
        fold(word, 64)
    }

    #[test]
    fn case_accents_and_ligatures_are_folded() {
        for (from, to) in [
            ("Ärger", "arger"),
            ("A\u{308}rger", "arger"),
            ("Straße", "strasse"),
            ("STRASSE", "strasse"),
            ("ﬁne", "fine"),
            ("Ｈｅｌｌｏ", "hello"),
            ("İstanbul", "istanbul"),
            ("Tiếng", "tieng"),
            ("Øre", "ore"),
            ("ΣΊΣΥΦΟΣ", "σισυφοσ"),
            ("Ёлка", "елка"),
            ("①", "1"),
        ] {
            assert_eq!(folded(from), to, "{from}");
        }
    }

    #[test]
    fn marks_that_make_another_letter_stay() {
        assert_ne!(folded("が"), folded("か"));
        assert_eq!(folded("ｶﾞ"), "ガ");
        assert_ne!(folded("й"), folded("и"));
        assert_ne!(folded("มี"), folded("มา"));
        assert_eq!(folded("한국"), "한국");
    }

    #[test]
    fn vowel_points_and_joiners_are_left_out() {
        assert_eq!(folded("كِتَاب"), folded("كتاب"));
        assert_eq!(folded("שָׁלוֹם"), folded("שלום"));
        assert_eq!(folded("می\u{200C}خواهم"), "میخواهم");
        assert_eq!(folded("👍🏽"), "👍");
        assert_eq!(folded("❤\u{FE0F}"), "❤");
    }
}
