//! Text as numbers: [`CharVocabulary`].

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The characters of a text, numbered from 0 in the order of their code points, for a language model of characters. In a file it is
/// the text of its characters.
///
/// ```
/// use fused_rnn::data::CharVocabulary;
/// let vocabulary = CharVocabulary::from_text("hello")?;
/// assert_eq!(vocabulary.characters(), ['e', 'h', 'l', 'o']);
/// assert_eq!(vocabulary.encode("hole")?, [1, 3, 2, 0]);
/// assert_eq!(vocabulary.decode(&[1, 3, 2, 0])?, "hole");
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CharVocabulary {
    /// Sorted, each once.
    characters: Vec<char>,
}

impl CharVocabulary {
    /// The characters that `text` has: Python's `sorted(set(text))`.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] for an empty text.
    pub fn from_text(text: &str) -> Result<Self> {
        let characters: std::collections::BTreeSet<char> = text.chars().collect();
        if characters.is_empty() {
            return Err(Error::ZeroSize { name: "number of characters of the text" });
        }
        Ok(CharVocabulary { characters: characters.into_iter().collect() })
    }

    /// The characters in order.
    pub fn characters(&self) -> &[char] {
        &self.characters
    }

    /// How many characters there are; at least one.
    #[allow(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.characters.len()
    }

    /// The number of a character, if it is one of these.
    pub fn index(&self, character: char) -> Option<usize> {
        self.characters.binary_search(&character).ok()
    }

    /// The numbers of a text's characters.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] naming the first character that is not one of these, its position and its line.
    pub fn encode(&self, text: &str) -> Result<Vec<usize>> {
        let number = |(position, character): (usize, char)| {
            self.index(character).ok_or_else(|| Error::Data {
                source_name: "text".to_owned(),
                line: Some(1 + text.chars().take(position).filter(|c| *c == '\n').count() as u64),
                problem: format!(
                    "character {character:?} (U+{:04X}) at position {position} is not one of the vocabulary's {}; make the vocabulary of \
                     all text that it is for, or replace the character",
                    u32::from(character),
                    self.characters.len()
                ),
            })
        };
        text.chars().enumerate().map(number).collect()
    }

    /// The text of numbers.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] naming the first number that is not that of a character.
    pub fn decode(&self, indices: &[usize]) -> Result<String> {
        let character = |(position, index): (usize, &usize)| {
            self.characters.get(*index).copied().ok_or_else(|| {
                let expected = format!("the number of a character, below {}", self.characters.len());
                Error::option(format!("indices[{position}]"), expected, index)
            })
        };
        indices.iter().enumerate().map(character).collect()
    }
}

impl TryFrom<String> for CharVocabulary {
    type Error = Error;

    fn try_from(characters: String) -> Result<Self> {
        let vocabulary = CharVocabulary::from_text(&characters)?;
        if !vocabulary.characters.iter().copied().eq(characters.chars()) {
            return Err(Error::option(
                "vocabulary",
                "characters in the order of their code points, each once",
                characters,
            ));
        }
        Ok(vocabulary)
    }
}

impl From<CharVocabulary> for String {
    fn from(vocabulary: CharVocabulary) -> Self {
        vocabulary.characters.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let text = "né\u{1F600}\na b\na";
        let vocabulary = CharVocabulary::from_text(text).unwrap();
        assert_eq!(vocabulary.characters(), ['\n', ' ', 'a', 'b', 'n', 'é', '\u{1F600}']);
        assert_eq!((vocabulary.len(), vocabulary.index('a'), vocabulary.index('z')), (7, Some(2), None));
        let numbers = vocabulary.encode(text).unwrap();
        assert_eq!(numbers.len(), 9);
        assert_eq!(vocabulary.decode(&numbers).unwrap(), text);
        let json = serde_json::to_string(&vocabulary).unwrap();
        assert_eq!(serde_json::from_str::<CharVocabulary>(&json).unwrap(), vocabulary);
    }

    #[test]
    fn what_is_unknown_is_named() {
        let vocabulary = CharVocabulary::from_text("abc\n").unwrap();
        let message = vocabulary.encode("ab\ncä").unwrap_err().to_string();
        assert!(message.contains("line 2") && message.contains("'ä' (U+00E4) at position 4"), "{message}");
        let message = vocabulary.decode(&[0, 4]).unwrap_err().to_string();
        assert!(message.contains("indices[1]") && message.contains("below 4, got 4"), "{message}");
        assert!(matches!(CharVocabulary::from_text(""), Err(Error::ZeroSize { .. })));
        for json in [r#""""#, r#""ba""#, r#""aa""#, "[]", "1"] {
            assert!(serde_json::from_str::<CharVocabulary>(json).is_err(), "{json}");
        }
    }
}
