//! No input makes the parser panic, and nothing but the driver's own words raises a fault.

use device_api_kmsg::{Parsed, parse_line};
use proptest::prelude::*;

const SAMPLES: &str = include_str!("../../../data/xid-kmsg-samples.tsv");

fn sample() -> impl Strategy<Value = &'static str> {
    let lines: Vec<&str> = SAMPLES
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(_, line)| line)
        .collect();
    prop::sample::select(lines)
}

/// The longest prefix of `text` with at most `chars` characters.
fn cut(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

proptest! {
    #[test]
    fn arbitrary_text(text in any::<String>()) {
        // Only what follows the driver's tag can be a fault.
        if !text.contains("NVRM:") && !text.contains("nvidia-nvswitch") {
            prop_assert_eq!(parse_line(&text), None);
        }
    }

    #[test]
    fn arbitrary_text_behind_the_tag(text in "(NVRM: (Xid \\(|GPU |The NVIDIA GPU )?|nvidia-nvswitch[0-9]: SXid \\(|[0-9]{1,3},[0-9]{1,9},[0-9]{1,9},-;NVRM: )\\PC{0,80}") {
        parse_line(&text);
    }

    #[test]
    fn real_lines_cut(line in sample(), at in 0_usize..260) {
        let part = cut(line, at);
        // A line that was cut never becomes another fault than the whole line tells of.
        if let Some(Parsed::Xid(cut)) = parse_line(&part) {
            match parse_line(line) {
                Some(Parsed::Xid(whole)) => prop_assert_eq!((cut.pci, cut.code), (whole.pci, whole.code)),
                other => prop_assert!(false, "{:?} from {:?}", other, line),
            }
        }
    }

    #[test]
    fn real_lines_joined(first in sample(), second in sample(), at in 0_usize..260, glue in "[ ,.:;()\\[\\]x\\\\\u{0}é]{0,3}") {
        parse_line(&format!("{first}{glue}{second}"));
        parse_line(&format!("{}{glue}{second}", cut(first, at)));
    }

    #[test]
    fn real_lines_interleaved(first in sample(), second in sample(), picks in prop::collection::vec(any::<bool>(), 0..400)) {
        let (mut a, mut b) = (first.chars(), second.chars());
        let text: String = picks.iter().filter_map(|pick| if *pick { a.next() } else { b.next() }).collect();
        parse_line(&text);
    }

    #[test]
    fn real_lines_with_a_character_changed(line in sample(), at in 0_usize..260, with in any::<char>()) {
        let text: String = line.chars().enumerate().map(|(i, c)| if i == at { with } else { c }).collect();
        parse_line(&text);
    }
}
