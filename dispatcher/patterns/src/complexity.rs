//! How complex the wildcards of one field are, as AWS measures it: the most wildcard prefixes that one value can
//! hold open at the same time.
//!
//! A wildcard is a chain of places: one after each literal byte, one inside each star. While a value is read, it
//! may stand in several places at once. Before the first star only one text is possible; after it every star that
//! was reached stays open, and further places are open where the text read last is the beginning of what follows a
//! star. So the worst value reaches every star and then spells the beginning that has most other beginnings as its
//! ends. That takes no search over automaton states, whose number would be exponential.

use std::collections::BTreeSet;

use crate::limits::{MAX_COMPLEXITY_STEPS, MAX_WILDCARD_COMPLEXITY};
use crate::wildcard::Wildcard;

/// Whether the wildcards of one field are more complex than AWS accepts. Each group is one rule of the field: a
/// `wildcard`, or all wildcards of one `anything-but`, which share their beginnings.
pub(crate) fn too_complex(groups: &[&[Wildcard]]) -> bool {
    let paths: Vec<Path> = groups
        .iter()
        .enumerate()
        .flat_map(|(group, wildcards)| wildcards.iter().map(move |wildcard| Path::new(group, wildcard)))
        .collect();
    if groups.len() > MAX_WILDCARD_COMPLEXITY {
        return true;
    }
    let mut steps = 0;
    let mut heads = BTreeSet::new();
    paths.iter().filter(|path| heads.insert(path.head.as_slice())).any(|path| {
        let open: Vec<&Path> = paths.iter().filter(|other| path.head.starts_with(&other.head)).collect();
        beginnings_too_many(&paths, path, &mut steps) || after_stars_too_many(&open, &mut steps)
    })
}

/// The texts of one wildcard, in the quotes that belong to the value.
struct Path {
    group: usize,
    head: Vec<u8>,
    tails: Vec<Vec<u8>>,
}

impl Path {
    fn new(group: usize, wildcard: &Wildcard) -> Self {
        let mut parts: Vec<Vec<u8>> = wildcard.parts().iter().map(|part| part.as_bytes().to_vec()).collect();
        if let Some(last) = parts.last_mut() {
            last.push(b'"');
        }
        let mut head = parts.remove(0);
        head.insert(0, b'"');
        Self { group, head, tails: parts }
    }
}

/// Counts the rules still possible before any star, at each beginning of this path.
fn beginnings_too_many(paths: &[Path], path: &Path, steps: &mut usize) -> bool {
    *steps += paths.len() * path.head.len();
    if *steps > MAX_COMPLEXITY_STEPS {
        return true;
    }
    (1..=path.head.len()).any(|read| {
        let begun = |other: &&Path| other.head.starts_with(&path.head[..read]);
        let rules: BTreeSet<usize> = paths.iter().filter(begun).map(|other| other.group).collect();
        let at_star = |other: &&Path| other.head == path.head[..read] && !other.tails.is_empty();
        let stars: BTreeSet<usize> = paths.iter().filter(at_star).map(|other| other.group).collect();
        rules.len() + stars.len() > MAX_WILDCARD_COMPLEXITY
    })
}

/// Counts the open stars and, for the worst text after them, the begun literals.
fn after_stars_too_many(open: &[&Path], steps: &mut usize) -> bool {
    let first: BTreeSet<(usize, &[u8])> =
        open.iter().filter(|path| !path.tails.is_empty()).map(|path| (path.group, &path.head[..])).collect();
    let later: usize = open.iter().map(|path| path.tails.len().saturating_sub(1)).sum();
    let stars = first.len() + later;
    let tails: Vec<&[u8]> = open.iter().flat_map(|path| path.tails.iter().map(Vec::as_slice)).collect();
    stars > MAX_WILDCARD_COMPLEXITY
        || tails.iter().any(|tail| {
            (1..=tail.len()).any(|end| stars + begun(&tails, &tail[..end], steps) > MAX_WILDCARD_COMPLEXITY)
        })
}

/// How many beginnings of the tails the text ends with; as many as are too many once the steps are spent.
fn begun(tails: &[&[u8]], text: &[u8], steps: &mut usize) -> usize {
    let mut count = 0;
    for tail in tails {
        for end in 1..=tail.len() {
            *steps += 1;
            count += usize::from(text.ends_with(&tail[..end]));
            if count > MAX_WILDCARD_COMPLEXITY || *steps > MAX_COMPLEXITY_STEPS {
                return MAX_WILDCARD_COMPLEXITY + 1;
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(patterns: &[&str]) -> bool {
        let wildcards: Vec<Wildcard> = patterns.iter().map(|p| Wildcard::read(p).unwrap()).collect();
        let groups: Vec<&[Wildcard]> = wildcards.iter().map(std::slice::from_ref).collect();
        too_complex(&groups)
    }

    #[test]
    fn agrees_with_what_aws_accepts_and_refuses() {
        assert!(check(&["*:*:*:*:*:event-bus/*"]));
        assert!(!check(&["arn:aws:events:us-east-1:*:event-bus/*"]));
        assert!(!check(&["/Users/*/dir/dir/dir/dir/dir/doc.txt"]));
        assert!(!check(&["*.bif", "*.tiff", "*.tif", "*.svs"]));
        assert!(!check(&["*/datasync/*.bif", "*/datasync/*.tif"]));
        assert!(check(&["*/datasync/*.bif", "*/datasync/*.tif", "*/datasync/*.tiff", "*/datasync/*.svs"]));
    }

    #[test]
    fn a_long_repetitive_wildcard_is_judged_quickly() {
        let long = format!("*{}b", "a".repeat(50_000));
        assert!(check(&[&long]));
        assert!(!check(&[&format!("*{}", "ab".repeat(5))]));
    }
}
