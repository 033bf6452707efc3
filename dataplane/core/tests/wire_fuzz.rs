//! The fuzz target bodies over their seeds and over seeded mutations of them.

#[path = "../fuzz/src/lib.rs"]
mod bodies;

/// xorshift64*: the same inputs in every run.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 16) as usize % n.max(1)
    }
}

fn mutate(rng: &mut Rng, input: &mut Vec<u8>) {
    for _ in 0..=rng.below(4) {
        let at = rng.below(input.len());
        match rng.below(7) {
            0 if !input.is_empty() => input[at] ^= 1 << rng.below(8),
            1 if !input.is_empty() => input[at] = rng.next() as u8,
            2 if !input.is_empty() => input[at] = [0, 1, 4, 6, 63, 0x7f, 0x80, 0xff][rng.below(8)],
            3 => input.truncate(at),
            4 => input.insert(at, rng.next() as u8),
            5 => input.extend((0..rng.below(40)).map(|n| n as u8)),
            _ => {
                input.drain(..at.min(4));
            }
        }
    }
}

#[test]
fn bodies_hold_over_seeds_mutations_and_noise() {
    for (target, body) in bodies::TARGETS {
        let seeds = bodies::seeds(target);
        assert!(seeds.len() >= 12, "{target}");
        seeds.iter().for_each(|s| body(s));
        let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
        for round in 0..40_000 {
            let mut input = if round % 8 == 0 {
                (0..rng.below(300)).map(|_| rng.next() as u8).collect()
            } else {
                seeds[rng.below(seeds.len())].clone()
            };
            mutate(&mut rng, &mut input);
            body(&input);
        }
    }
}

#[test]
fn seeds_are_what_they_claim() {
    use mpip_core::cm::{Cm, tlv};
    use mpip_core::wire::{L3, parse_frame};
    for s in bodies::seeds("cm_parse") {
        assert!(Cm::parse_tail(&s).is_ok());
    }
    for s in bodies::seeds("tlv_parse") {
        assert!(tlv::parse(&s).all(|t| t.is_ok()));
    }
    let frames = bodies::seeds("frame_parse");
    let ip = frames.iter().filter(|f| parse_frame(f).expect("seed").l3 != L3::Other).count();
    assert_eq!(ip, frames.len() - 1, "all but the ARP request");
}

#[test]
fn the_published_tlv_table_is_the_code() {
    let (_, page) = include_str!("../docs/wire.md").split_once("## TLVs").expect("chapter");
    let mut rows = 0;
    for tlv in bodies::sample_tlvs() {
        let mut element = Vec::new();
        tlv.encode(&mut element);
        let start = format!("| {} | ", tlv.kind());
        let row = page.lines().find(|l| l.starts_with(&start)).expect("a row for every type");
        let length = row.split('|').nth(3).expect("length column").trim();
        // Lists are written "fixed + each n".
        match length.split_once(" + ") {
            None => assert_eq!(length.parse(), Ok(element[1]), "{row}"),
            Some((fixed, each)) => {
                let fixed: u8 = fixed.parse().expect("number");
                let each: u8 = each.trim_end_matches('n').parse().expect("number");
                assert_eq!((element[1] - fixed) % each, 0, "{row}");
            }
        }
        rows += 1;
    }
    assert_eq!(rows, 21);
}
