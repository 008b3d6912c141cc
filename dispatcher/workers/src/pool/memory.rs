//! Resident memory of process groups, read from `/proc`.

use std::collections::HashMap;
use std::fs;

/// Adds up resident memory in bytes by process group, over the groups asked for. Blocking: about 10 µs for each
/// process of the machine.
pub fn resident_by_group(groups: &[i32]) -> HashMap<i32, u64> {
    let page = rustix::param::page_size() as u64;
    let mut sums = HashMap::with_capacity(groups.len());
    let Ok(entries) = fs::read_dir("/proc") else { return sums };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit())) {
            continue;
        }
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some((group, pages)) = parse(&stat)
            && groups.contains(&group)
        {
            *sums.entry(group).or_default() += pages * page;
        }
    }
    sums
}

/// Reads process group and resident pages (fields 5 and 24 of proc(5)) out of a `stat` line.
fn parse(stat: &str) -> Option<(i32, u64)> {
    // The second field is the program's name in brackets and may hold anything, brackets too.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let group = fields.nth(2)?.parse().ok()?;
    let pages = fields.nth(18)?.parse().ok()?;
    Some((group, pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_confuse() {
        let line = "42 (a) b) (c)) S 1 77 77 0 -1 4194304 1 0 0 0 5 6 0 0 20 0 1 0 100 9999 321 18446744073709551615";
        assert_eq!(parse(line), Some((77, 321)));
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn our_own_group_uses_memory() {
        let group = rustix::process::getpgrp().as_raw_nonzero().get();
        assert!(resident_by_group(&[group])[&group] > 100_000);
    }
}
