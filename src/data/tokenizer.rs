//! Texts as numbers of words or characters: [`Tokenizer`].

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;

/// What a token is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenUnit {
    /// What stands between white space.
    #[default]
    Word,
    /// A character.
    Character,
}

/// How [`Tokenizer::from_texts`] reads texts; the defaults are those of Keras's
/// [`TextVectorization`](https://keras.io/api/layers/preprocessing_layers/text/text_vectorization/).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerOptions {
    /// Words, or characters.
    pub unit: TokenUnit,
    /// Whether letters become lower case; yes.
    pub lower_case: bool,
    /// Whether ASCII punctuation is taken out; yes.
    pub strip_punctuation: bool,
    /// Most tokens, the two special ones among them: the most frequent stay; all.
    pub max_tokens: Option<usize>,
}

impl Default for TokenizerOptions {
    fn default() -> Self {
        TokenizerOptions { unit: TokenUnit::Word, lower_case: true, strip_punctuation: true, max_tokens: None }
    }
}

/// The tokens of texts, numbered: 0 is padding, 1 stands for all that is unknown, then come the tokens, the most frequent first and equally
/// frequent ones in the order of the alphabet. Sequences are made equally long by [`pad_sequences`](crate::data::pad_sequences).
///
/// ```
/// use fused_rnn::data::{Tokenizer, TokenizerOptions};
/// let tokenizer = Tokenizer::from_texts(["The cat sat.", "The dog!"], TokenizerOptions::default())?;
/// assert_eq!(tokenizer.tokens(), ["", "[UNK]", "the", "cat", "dog", "sat"]);
/// assert_eq!(tokenizer.encode("the dog ran"), [2, 4, 1]);
/// assert_eq!(tokenizer.decode(&[2, 4, 0])?, "the dog");
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "SavedTokenizer", into = "SavedTokenizer")]
pub struct Tokenizer {
    options: TokenizerOptions,
    tokens: Vec<String>,
    numbers: HashMap<String, usize>,
}

/// What a file holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedTokenizer {
    options: TokenizerOptions,
    /// Without the two special ones.
    tokens: Vec<String>,
}

/// The token of what is unknown.
const UNKNOWN: &str = "[UNK]";

impl Tokenizer {
    /// The tokens of these texts.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] where they have none; [`Error::InvalidOption`] for `max_tokens` below 3.
    pub fn from_texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>, options: TokenizerOptions) -> Result<Self> {
        if let Some(most) = options.max_tokens.filter(|most| *most < 3) {
            return Err(Error::option("max_tokens", "at least 3, two for padding and what is unknown", most));
        }
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for text in texts {
            for token in split(text.as_ref(), options) {
                *counts.entry(token).or_insert(0) += 1;
            }
        }
        let mut order: Vec<(String, u64)> = counts.into_iter().collect();
        // Stable: equally frequent ones stay in the order of the alphabet.
        order.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        order.truncate(options.max_tokens.map_or(usize::MAX, |most| most - 2));
        Self::new(options, order.into_iter().map(|(token, _)| token).collect())
    }

    /// A tokenizer of given tokens, without the two special ones.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] for none; [`Error::InvalidOption`] for one that is empty or there twice.
    pub fn new(options: TokenizerOptions, tokens: Vec<String>) -> Result<Self> {
        if tokens.is_empty() {
            return Err(Error::ZeroSize { name: "number of tokens of the texts" });
        }
        let mut numbers = HashMap::with_capacity(tokens.len());
        for (i, token) in tokens.iter().enumerate() {
            if token.is_empty() || numbers.insert(token.clone(), i + 2).is_some() {
                return Err(Error::option(format!("tokens[{i}]"), "a token that is not empty, each once", token));
            }
        }
        let tokens = [String::new(), UNKNOWN.to_owned()].into_iter().chain(tokens).collect();
        Ok(Tokenizer { options, tokens, numbers })
    }

    /// All tokens by their numbers: nothing for padding, `[UNK]`, then those of the texts.
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// How many numbers there are, the two special ones among them: the `input_dim` of an embedding.
    #[allow(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The number of a token, if it is one of these.
    pub fn index(&self, token: &str) -> Option<usize> {
        self.numbers.get(token).copied()
    }

    /// The numbers of a text's tokens, 1 for unknown ones.
    pub fn encode(&self, text: &str) -> Vec<usize> {
        split(text, self.options).iter().map(|token| self.index(token).unwrap_or(1)).collect()
    }

    /// The text of numbers, without padding: words with a space between them.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] naming the first number that is no token's.
    pub fn decode(&self, numbers: &[usize]) -> Result<String> {
        let mut parts = Vec::new();
        for (position, number) in numbers.iter().enumerate() {
            match self.tokens.get(*number) {
                Some(token) if token.is_empty() => {}
                Some(token) => parts.push(token.as_str()),
                None => {
                    let expected = format!("the number of a token, below {}", self.tokens.len());
                    return Err(Error::option(format!("numbers[{position}]"), expected, number));
                }
            }
        }
        Ok(parts.join(if self.options.unit == TokenUnit::Word { " " } else { "" }))
    }

    /// Writes it to a JSON file, atomically.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let text = serde_json::to_string(self).map_err(|e| format_error(path, &e))?;
        files::write_atomic(path, text.as_bytes())
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::Format`] where the file is no tokenizer.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let no_text = |problem| Error::Format { path: path.to_owned(), format: "tokenizer", problem };
        let bytes = files::read_after(path, |beginning, _| {
            files::zero_in_text(beginning).map_or(Ok(()), |problem| Err(no_text(problem)))
        })?;
        serde_json::from_slice(&bytes).map_err(|e| format_error(path, &e))
    }
}

fn format_error(path: &Path, problem: &serde_json::Error) -> Error {
    Error::Format { path: path.to_owned(), format: "tokenizer", problem: problem.to_string() }
}

/// The tokens of a text.
fn split(text: &str, options: TokenizerOptions) -> Vec<String> {
    let lower = if options.lower_case { text.to_lowercase() } else { text.to_owned() };
    let kept: String = lower.chars().filter(|c| !(options.strip_punctuation && c.is_ascii_punctuation())).collect();
    match options.unit {
        TokenUnit::Word => kept.split_whitespace().map(str::to_owned).collect(),
        TokenUnit::Character => kept.chars().map(String::from).collect(),
    }
}

impl TryFrom<SavedTokenizer> for Tokenizer {
    type Error = Error;

    fn try_from(saved: SavedTokenizer) -> Result<Self> {
        Tokenizer::new(saved.options, saved.tokens)
    }
}

impl From<Tokenizer> for SavedTokenizer {
    fn from(tokenizer: Tokenizer) -> Self {
        SavedTokenizer { options: tokenizer.options, tokens: tokenizer.tokens.into_iter().skip(2).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_say_what_a_token_is() {
        let texts = ["It's a CAT, a cat!", "a dog"];
        let options = TokenizerOptions::default();
        let words = Tokenizer::from_texts(texts, options).unwrap();
        assert_eq!(words.tokens(), ["", "[UNK]", "a", "cat", "dog", "its"]);
        let few = Tokenizer::from_texts(texts, TokenizerOptions { max_tokens: Some(4), ..options }).unwrap();
        assert_eq!((few.len(), few.encode("a dog, CAT")), (4, vec![2, 1, 3]));
        let as_is = TokenizerOptions { lower_case: false, strip_punctuation: false, ..options };
        assert_eq!(Tokenizer::from_texts(texts, as_is).unwrap().index("CAT,"), Some(3));
        let characters = Tokenizer::from_texts(["aab"], TokenizerOptions { unit: TokenUnit::Character, ..options });
        let characters = characters.unwrap();
        assert_eq!(characters.decode(&characters.encode("ba")).unwrap(), "ba");
        assert!(Tokenizer::from_texts([".", " "], options).is_err() && words.decode(&[6]).is_err());
        assert!(Tokenizer::from_texts(texts, TokenizerOptions { max_tokens: Some(2), ..options }).is_err());
    }

    #[test]
    fn a_file_gives_the_same_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.json");
        let tokenizer = Tokenizer::from_texts(["é b \"c\" b"], TokenizerOptions::default()).unwrap();
        tokenizer.save(&path).unwrap();
        assert_eq!(Tokenizer::load(&path).unwrap(), tokenizer);
        for text in ["", "{}", r#"{"options": {}, "tokens": []}"#] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Tokenizer::load(&path), Err(Error::Format { .. })), "{text}");
        }
        let twice = serde_json::to_string(&tokenizer).unwrap().replace("\"c\"", "\"b\"");
        std::fs::write(&path, twice).unwrap();
        assert!(Tokenizer::load(&path).unwrap_err().to_string().contains("each once"));
    }
}
