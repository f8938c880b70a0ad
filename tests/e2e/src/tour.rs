//! README's trials: the blocks marked `sh tour` or otherwise, and the script that runs them in order in one shell.

use anyhow::{Result, bail};

/// The blocks with this mark in their order, each without its fence.
///
/// # Errors
/// When a block is not closed, or there is none.
pub fn blocks(readme: &str, mark: &str) -> Result<Vec<String>> {
    let begin = format!("```sh {mark}");
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in readme.lines() {
        match &mut open {
            None if line.trim_end() == begin => open = Some(String::new()),
            None => {}
            Some(block) if line.trim_end() == "```" => {
                blocks.push(std::mem::take(block));
                open = None;
            }
            Some(block) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    if open.is_some() {
        bail!("a block marked `sh {mark}` is not closed");
    }
    if blocks.is_empty() {
        bail!("README has no block marked `sh {mark}`");
    }
    Ok(blocks)
}

/// One bash script of all of them; a failing command of any ends it, and its number is the last one printed.
pub fn script(blocks: &[String]) -> String {
    let mut script = String::from("set -euo pipefail\n");
    for (number, block) in blocks.iter().enumerate() {
        script.push_str(&format!("echo '== block {}' >&2\n{block}", number + 1));
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_blocks_are_taken_in_order() {
        let readme = "a\n```sh tour\none\n```\n```sh\nnot me\n```\n```sh tour\ntwo\nthree\n```\n";
        assert_eq!(blocks(readme, "tour").unwrap(), ["one\n", "two\nthree\n"]);
        assert!(blocks("```sh\nx\n```\n", "tour").is_err());
        assert!(blocks("```sh tour\nx\n", "tour").is_err());
    }
}
