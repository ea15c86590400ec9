//! The tags of a targets file, packed: collections hold them by the ten thousand.
//!
//! All stand one behind the other in one allocation, in rising order, with an index: some 60 bytes
//! a tag, where a map of strings and boxes would take 200. They are borrowed as [`TargetRef`]s.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use super::{HashesRef, Target, TargetRef};

/// Tag to target, in rising order of the tags' bytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tags {
    /// For each tag: its length and its text, the target's length, 0 or one more than the length of
    /// its custom data, that data, its packed digests. Numbers by [`write_number`].
    packed: Vec<u8>,
    /// Where each tag ends in `packed`. (A document is no longer than 100 MiB.)
    ends: Vec<u32>,
}

impl Tags {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The target of a tag.
    #[must_use]
    pub fn get(&self, tag: &str) -> Option<TargetRef<'_>> {
        let index = self.search(tag).ok()?;
        Some(self.entry(index).1)
    }

    /// Whether the tag is there.
    #[must_use]
    pub fn contains_key(&self, tag: &str) -> bool {
        self.search(tag).is_ok()
    }

    /// Tags with their targets, in rising order.
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            rest: &self.packed,
            starts_at: 0,
            ends: self.ends.iter(),
        }
    }

    /// Tags in rising order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(tag, _)| tag)
    }

    /// The tags of this and of another, in rising order and each once, with the target that it has
    /// here and the one that it has there. One pass over both, where looking each up would be a
    /// search for each.
    pub fn beside<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (&'a str, Option<TargetRef<'a>>, Option<TargetRef<'a>>)> {
        let (mut here, mut there) = (self.iter().peekable(), other.iter().peekable());
        std::iter::from_fn(move || {
            let order = match (here.peek(), there.peek()) {
                (Some((a, _)), Some((b, _))) => a.cmp(b),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return None,
            };
            let ours = here.next_if(|_| order.is_le());
            let theirs = there.next_if(|_| order.is_ge());
            let (tag, _) = ours.or(theirs)?;
            Some((tag, ours.map(|(_, t)| t), theirs.map(|(_, t)| t)))
        })
    }

    /// Adds or replaces a tag; moves all that come after it.
    pub fn insert(&mut self, tag: String, target: Target) {
        let mut entry = Vec::new();
        write_entry(&mut entry, &tag, target.as_ref());
        match self.search(&tag) {
            Ok(index) => self.splice(index, index + 1, &entry),
            Err(index) => self.splice(index, index, &entry),
        }
    }

    /// Removes a tag; moves all that come after it.
    pub fn remove(&mut self, tag: &str) -> Option<Target> {
        let index = self.search(tag).ok()?;
        let target = self.entry(index).1.to_target();
        self.splice(index, index + 1, &[]);
        Some(target)
    }

    /// Adds a tag that is greater than all there are: false, and nothing added, when it is not.
    pub(super) fn push(&mut self, tag: &str, target: TargetRef<'_>) -> bool {
        if let Some(last) = self.len().checked_sub(1)
            && self.entry(last).0 >= tag
        {
            return false;
        }
        write_entry(&mut self.packed, tag, target);
        self.ends.push(position(self.packed.len()));
        true
    }

    /// Gives back what growing took beyond the need.
    pub(super) fn shrink(&mut self) {
        self.packed.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    /// Puts `entry`, or nothing, in the place of the entries from `from` to before `to`.
    fn splice(&mut self, from: usize, to: usize, entry: &[u8]) {
        let (start, end) = (self.start(from), self.start(to));
        self.packed.splice(start..end, entry.iter().copied());
        let mut ends = self.ends.split_off(from);
        ends.drain(..to - from);
        if !entry.is_empty() {
            self.ends.push(position(start + entry.len()));
        }
        let moved = |old: u32| position(old as usize + entry.len() - (end - start));
        self.ends.extend(ends.into_iter().map(moved));
    }

    fn start(&self, index: usize) -> usize {
        match index.checked_sub(1) {
            Some(before) => self.ends[before] as usize,
            None => 0,
        }
    }

    fn entry(&self, index: usize) -> (&str, TargetRef<'_>) {
        read_entry(&self.packed[self.start(index)..self.start(index + 1)])
    }

    /// The text of a tag, without reading the rest of its entry.
    fn tag(&self, index: usize) -> &[u8] {
        let (len, rest) = read_number(&self.packed[self.start(index)..self.start(index + 1)]);
        &rest[..len as usize]
    }

    /// Where a tag is, or would be.
    fn search(&self, tag: &str) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.tag(middle).cmp(tag.as_bytes()) {
                Ordering::Equal => return Ok(middle),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }
}

/// Tags with their targets.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    rest: &'a [u8],
    starts_at: u32,
    ends: std::slice::Iter<'a, u32>,
}

impl Default for Iter<'_> {
    fn default() -> Self {
        Self {
            rest: &[],
            starts_at: 0,
            ends: [].iter(),
        }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, TargetRef<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let end = *self.ends.next()?;
        let (entry, rest) = self.rest.split_at((end - self.starts_at) as usize);
        (self.rest, self.starts_at) = (rest, end);
        Some(read_entry(entry))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.ends.size_hint()
    }
}

impl<'a> IntoIterator for &'a Tags {
    type Item = (&'a str, TargetRef<'a>);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl From<BTreeMap<String, Target>> for Tags {
    fn from(map: BTreeMap<String, Target>) -> Self {
        let mut tags = Self::default();
        for (tag, target) in &map {
            tags.push(tag, target.as_ref());
        }
        tags.shrink();
        tags
    }
}

impl<const N: usize> From<[(String, Target); N]> for Tags {
    fn from(tags: [(String, Target); N]) -> Self {
        BTreeMap::from(tags).into()
    }
}

impl FromIterator<(String, Target)> for Tags {
    fn from_iter<I: IntoIterator<Item = (String, Target)>>(tags: I) -> Self {
        tags.into_iter().collect::<BTreeMap<_, _>>().into()
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

fn write_entry(out: &mut Vec<u8>, tag: &str, target: TargetRef<'_>) {
    write_number(out, tag.len() as u64);
    out.extend_from_slice(tag.as_bytes());
    write_number(out, target.length);
    match target.custom {
        None => write_number(out, 0),
        Some(custom) => {
            write_number(out, custom.len() as u64 + 1);
            out.extend_from_slice(custom.as_bytes());
        }
    }
    out.extend_from_slice(target.hashes.packed());
}

fn read_entry(entry: &[u8]) -> (&str, TargetRef<'_>) {
    let (len, rest) = read_number(entry);
    let (tag, rest) = rest.split_at(len as usize);
    let (length, rest) = read_number(rest);
    let (custom, rest) = match read_number(rest) {
        (0, rest) => (None, rest),
        (len, rest) => {
            let (custom, rest) = rest.split_at(len as usize - 1);
            (Some(text(custom)), rest)
        }
    };
    let target = TargetRef {
        custom,
        hashes: HashesRef::of_packed(rest),
        length,
    };
    (text(tag), target)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it was packed as text")
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read_number(bytes: &[u8]) -> (u64, &[u8]) {
    let mut number = 0;
    for (index, byte) in bytes.iter().enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return (number, &bytes[index + 1..]);
        }
    }
    unreachable!("a number was packed here")
}

fn position(at: usize) -> u32 {
    u32::try_from(at).expect("a document is no longer than 100 MiB")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::document::Hashes;

    fn target(number: u64, custom: Option<&str>) -> Target {
        Target {
            custom: custom.map(str::to_owned),
            hashes: Hashes::of_sha256([number as u8; 32]),
            length: number,
        }
    }

    #[test]
    fn what_was_packed_comes_out_again() {
        let map = BTreeMap::from([
            (String::new(), target(0, None)),
            ("latest".to_owned(), target(u64::MAX, Some(""))),
            ("ü".repeat(200), target(1 << 53, Some("{\"a\":1}"))),
        ]);
        let tags = Tags::from(map.clone());
        assert_eq!((tags.len(), tags.is_empty()), (3, false));
        let back: BTreeMap<String, Target> = tags
            .iter()
            .map(|(tag, target)| (tag.to_owned(), target.to_target()))
            .collect();
        assert_eq!(back, map);
        assert_eq!(tags.get("latest"), Some(map["latest"].as_ref()));
        assert_eq!(tags.get("late"), None);
        assert_eq!(
            tags.keys().collect::<Vec<_>>(),
            map.keys().collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_tag_that_does_not_rise_is_not_pushed() {
        let mut tags = Tags::default();
        assert!(tags.push("b", target(1, None).as_ref()));
        assert!(!tags.push("b", target(2, None).as_ref()));
        assert!(!tags.push("a", target(2, None).as_ref()));
        assert_eq!(tags.len(), 1);
    }

    proptest! {
        #[test]
        fn two_side_by_side_are_what_each_has(
            here in prop::collection::btree_map("[abc]{0,2}", 0..3_u64, 0..9),
            there in prop::collection::btree_map("[abc]{0,2}", 0..3_u64, 0..9),
        ) {
            let packed = |map: &BTreeMap<String, u64>| -> Tags {
                let entries = map.iter().map(|(tag, number)| (tag.clone(), target(*number, None)));
                entries.collect()
            };
            let (ours, theirs) = (packed(&here), packed(&there));
            let seen: Vec<_> = ours.beside(&theirs).collect();
            let tags: std::collections::BTreeSet<_> = here.keys().chain(there.keys()).collect();
            let expected: Vec<_> = tags
                .into_iter()
                .map(|tag| (tag.as_str(), ours.get(tag), theirs.get(tag)))
                .collect();
            prop_assert_eq!(seen, expected);
        }

        #[test]
        fn it_changes_as_a_map_does(
            changes in prop::collection::vec(("[abc]{0,2}", prop::option::of(0..5_u64)), 0..40)
        ) {
            let mut map = BTreeMap::new();
            let mut tags = Tags::default();
            for (tag, change) in changes {
                match change {
                    Some(number) => {
                        let custom = (number % 2 == 0).then_some("null");
                        map.insert(tag.clone(), target(number, custom));
                        tags.insert(tag, target(number, custom));
                    }
                    None => prop_assert_eq!(tags.remove(&tag), map.remove(&tag)),
                }
                prop_assert_eq!(&tags, &Tags::from(map.clone()));
            }
        }
    }
}
