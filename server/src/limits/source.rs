//! The value of a private constant, from its line of source: numbers, other constants of the same file or of wire's limits,
//! `* / + - <<`, parentheses, `as`, and `Duration::from_…` in its own unit. Anything else is an error.

use std::path::Path;

type Value = Result<u64, String>;

/// Of `name` in `file`; of a field of a struct literal: `NAME.field`.
pub(super) fn constant(root: &Path, file: &str, name: &str) -> Value {
    let read = |file: &str| std::fs::read_to_string(root.join(file)).map_err(|error| error.to_string());
    let (text, shared) = (read(file)?, read("wire/src/limits.rs")?);
    if let Some((name, field)) = name.split_once('.') {
        let (_, rest) = text
            .split_once(&format!("const {name}: "))
            .ok_or("no such constant")?;
        let (literal, _) = rest.split_once("};").ok_or("no struct")?;
        let (_, value) = literal.split_once(&format!("{field}: ")).ok_or("no such field")?;
        let (value, _) = value.split_once([',', '\n']).ok_or("no value")?;
        return Reader::new(value, &text, &shared).whole();
    }
    named(name, &text, &shared)
}

fn named(name: &str, text: &str, shared: &str) -> Value {
    for text in [text, shared] {
        for rest in text.split(&format!("const {name}: ")).skip(1) {
            let value = rest
                .split_once(" = ")
                .and_then(|(_, rest)| rest.split_once(';'))
                .map(|(value, _)| value);
            // A second name of the same one is no value.
            if let Some(value) = value.filter(|value| !value.ends_with(&format!("::{name}"))) {
                return Reader::new(value, text, shared).whole();
            }
        }
    }
    Err(format!("there is no constant {name}"))
}

struct Reader<'t> {
    words: Vec<String>,
    at: usize,
    text: &'t str,
    shared: &'t str,
}

impl<'t> Reader<'t> {
    fn new(expression: &str, text: &'t str, shared: &'t str) -> Self {
        let mut words: Vec<String> = Vec::new();
        let is_word = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
        for letter in expression.chars() {
            match words.last_mut() {
                Some(word) if is_word(letter) && word.chars().all(is_word) => word.push(letter),
                _ => words.push(letter.to_string()),
            }
        }
        words.retain(|word| !word.trim().is_empty());
        Self {
            words,
            at: 0,
            text,
            shared,
        }
    }

    fn peek(&self) -> &str {
        self.words.get(self.at).map_or("", String::as_str)
    }

    fn take(&mut self) -> String {
        self.at += 1;
        self.words.get(self.at - 1).cloned().unwrap_or_default()
    }

    fn whole(mut self) -> Value {
        let value = self.shifted()?;
        match self.peek() {
            "" => Ok(value),
            rest => Err(format!("`{rest}` is not understood")),
        }
    }

    fn shifted(&mut self) -> Value {
        let mut value = self.sum()?;
        while self.peek() == "<" {
            self.at += 2;
            value <<= self.sum()?;
        }
        Ok(value)
    }

    fn sum(&mut self) -> Value {
        let mut value = self.product()?;
        while matches!(self.peek(), "+" | "-") {
            match self.take().as_str() {
                "+" => value += self.product()?,
                _ => value -= self.product()?,
            }
        }
        Ok(value)
    }

    fn product(&mut self) -> Value {
        let mut value = self.atom()?;
        while matches!(self.peek(), "*" | "/") {
            match self.take().as_str() {
                "*" => value *= self.atom()?,
                _ => value /= self.atom()?,
            }
        }
        Ok(value)
    }

    fn atom(&mut self) -> Value {
        let word = self.take();
        let value = if word == "(" || word.starts_with("Duration::from_") {
            if word != "(" {
                self.at += 1;
            }
            let value = self.shifted()?;
            match self.take().as_str() {
                ")" => value,
                other => return Err(format!("`{other}` in place of `)`")),
            }
        } else if word.starts_with(|letter: char| letter.is_ascii_digit()) {
            word.replace('_', "")
                .parse()
                .map_err(|_| format!("`{word}` is no number"))?
        } else {
            let name = word.rsplit("::").next().unwrap_or_default();
            named(name, self.text, self.shared)?
        };
        if self.peek() == "as" {
            self.at += 2;
        }
        Ok(value)
    }
}

#[test]
fn expressions_are_worth_what_the_compiler_says() {
    const TEXT: &str = "const A: usize = 2;\nconst B: usize = (1 << 20) + 4 * A as usize;\nconst C: Duration = Duration::from_secs(1_500);\n";
    assert_eq!(named("B", TEXT, ""), Ok((1 << 20) + 8));
    assert_eq!(named("C", TEXT, ""), Ok(1_500));
    assert_eq!(
        named("D", TEXT, "pub const D: u16 = 7 - A;"),
        Err("there is no constant A".into())
    );
    assert!(named("E", "const E: u8 = odd!();", "").is_err());
}
