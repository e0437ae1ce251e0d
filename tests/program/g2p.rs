//! The pretrained speller of `examples/g2p.rs` against the original's phonemes.

#[allow(dead_code, reason = "the example's own ways in are not used here")]
#[path = "../../examples/g2p.rs"]
mod example;

use example::{Speller, common};
use fused_rnn::Device;

/// The phonemes that g2p_en's own code predicts, for all words at once and, whatever else is in the batch, for one at a time.
#[test]
fn a_thousand_words_are_spelled_as_by_the_original() {
    let text = std::fs::read_to_string(common::data("g2p_words.tsv")).unwrap();
    let (words, expected) = example::list(&text, usize::MAX);
    assert_eq!(words.len(), 1000);
    let mut speller = Speller::new(Device::cpu()).unwrap();
    let spelled = speller.spell(&words).unwrap();
    for ((word, ours), theirs) in words.iter().zip(&spelled).zip(&expected) {
        assert_eq!(ours, theirs, "{word}");
    }
    for (word, theirs) in words.iter().zip(&expected).step_by(50) {
        assert_eq!(speller.spell(&[word]).unwrap(), [theirs.as_str()], "{word}");
    }
}

/// Whatever is asked for, there is an answer: no letters at all, letters that English has not, a word of a thousand letters.
#[test]
fn odd_words_are_spelled_too() {
    let mut speller = Speller::new(Device::cpu()).unwrap();
    let long = "abc".repeat(333);
    let spelled = speller.spell(&["", "naïve", "Hello", "hello", &long]).unwrap();
    assert_eq!(spelled[2], "HH EH1 L OW0");
    assert_eq!(spelled[2], spelled[3]);
    assert!(spelled[4].split(' ').count() <= 20, "{}", spelled[4]);
    assert_eq!(speller.spell(&[""; 0]).unwrap(), Vec::<String>::new());
}
