//! Cuts a snippet around the best place of a message and says what to highlight. Works on the original text that the
//! caller fetched from the store; the index keeps none.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::{
    query::Query,
    text::{Piece, pieces, terms},
};

/// Usual length of a snippet in code points: two lines on a phone.
pub const SNIPPET_CHARS: usize = 160;

/// Most ranges in one snippet; the first ones are kept.
pub const MAX_RANGES: usize = 64;

/// A piece of a message with what matched in it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Snippet {
    /// Plain text on one line; `…` stands where something was cut off.
    pub text: String,
    /// Half-open ranges `[start, end]` in code points of `text`, in order, without overlap.
    pub ranges: Vec<[usize; 2]>,
}

/// The snippet of `content` for `query`, at most `max_chars` code points (at least 16) plus a `…` at each cut end.
/// A content in which nothing matches gives its beginning without ranges.
pub fn snippet(content: &str, query: &Query, max_chars: usize) -> Snippet {
    let max_chars = max_chars.max(16);
    let pieces = pieces(content);
    let hits = matches(&pieces, query);
    let chars = Chars::of(content);
    let hits: Vec<Hit> = hits
        .into_iter()
        .map(|hit| Hit {
            group: hit.group,
            range: chars.at(hit.range.start)..chars.at(hit.range.end),
        })
        .collect();
    let window = window(&chars, &hits, &pieces, max_chars);
    let lead = usize::from(window.start > 0);
    let mut out = Snippet::default();
    if lead == 1 {
        out.text.push('…');
    }
    let cut = &content[chars.byte(window.start)..chars.byte(window.end)];
    out.text
        .extend(cut.chars().map(|c| if c.is_control() { ' ' } else { c }));
    if window.end < chars.len() {
        out.text.push('…');
    }
    for hit in hits {
        let start = hit.range.start.max(window.start);
        let end = hit.range.end.min(window.end);
        if start >= end {
            continue;
        }
        let range = [start - window.start + lead, end - window.start + lead];
        let full = out.ranges.len() == MAX_RANGES;
        match out.ranges.last_mut() {
            Some(last) if range[0] <= last[1] => last[1] = last[1].max(range[1]),
            _ if full => break,
            _ => out.ranges.push(range),
        }
    }
    out
}

/// Where a group of the query occurs.
struct Hit {
    group: usize,
    range: Range<usize>,
}

/// Every occurrence of every group, in bytes, by where it starts.
fn matches(pieces: &[Piece], query: &Query) -> Vec<Hit> {
    let wanted: HashSet<&str> = query
        .groups
        .iter()
        .flat_map(|g| g.terms.iter().map(|(_, term)| term.as_str()))
        .collect();
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    terms(pieces, |position, _, term| {
        if wanted.contains(term.as_str()) {
            places.entry(term).or_default().push(position);
        }
    });
    let mut hits = Vec::new();
    for (index, group) in query.groups.iter().enumerate() {
        let Some(((first_offset, first), rest)) = group.terms.split_first() else {
            continue;
        };
        for &place in places.get(first).into_iter().flatten() {
            let Some(start) = place.checked_sub(*first_offset) else {
                continue;
            };
            let all = rest.iter().all(|(offset, term)| {
                places
                    .get(term)
                    .is_some_and(|at| at.binary_search(&(start + offset)).is_ok())
            });
            if let (true, Some(last)) = (all, pieces.get(start + group.span - 1)) {
                hits.push(Hit {
                    group: index,
                    range: pieces[start].range.start..last.range.end,
                });
            }
        }
    }
    hits.sort_by_key(|hit| (hit.range.start, hit.range.end));
    hits
}

/// The window with most distinct groups, then most hits, then the earliest; in code points, on word boundaries where possible.
fn window(chars: &Chars, hits: &[Hit], pieces: &[Piece], max: usize) -> Range<usize> {
    if chars.len() <= max {
        return 0..chars.len();
    }
    let mut best = (0, 0, 0..0);
    let mut end = 0;
    let mut counts: HashMap<usize, usize> = HashMap::new();
    for (start, hit) in hits.iter().enumerate() {
        while let Some(next) = hits.get(end)
            && (next.range.end <= hit.range.start + max || end == start)
        {
            *counts.entry(next.group).or_default() += 1;
            end += 1;
        }
        if (counts.len(), end - start) > (best.0, best.1) {
            best = (
                counts.len(),
                end - start,
                hit.range.start..hits[end - 1].range.end,
            );
        }
        if let Some(count) = counts.get_mut(&hit.group) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&hit.group);
            }
        }
    }
    let found = best.2;
    let spare = max.saturating_sub(found.len());
    // A third of the spare room before the find, the rest behind it, as one reads.
    let mut start = found.start.saturating_sub(spare / 3).min(chars.len() - max);
    let mut end = start + max;
    let inside = |at: usize| {
        pieces
            .iter()
            .map(|p| chars.at(p.range.start)..chars.at(p.range.end))
            .find(move |r| r.start < at && at < r.end)
    };
    if start > 0
        && let Some(word) = inside(start)
        && word.end <= found.start
    {
        start = word.end;
    }
    if end < chars.len()
        && let Some(word) = inside(end)
        && word.start >= found.end.max(start + 1)
    {
        end = word.start;
    }
    start..end
}

/// Byte offsets of code points, both ways.
struct Chars(Vec<usize>);

impl Chars {
    fn of(text: &str) -> Self {
        Self(
            text.char_indices()
                .map(|(at, _)| at)
                .chain([text.len()])
                .collect(),
        )
    }

    fn len(&self) -> usize {
        self.0.len() - 1
    }

    /// Index of the code point that starts at byte `byte`.
    fn at(&self, byte: usize) -> usize {
        self.0.partition_point(|&at| at < byte)
    }

    fn byte(&self, char: usize) -> usize {
        self.0[char.min(self.len())]
    }
}
