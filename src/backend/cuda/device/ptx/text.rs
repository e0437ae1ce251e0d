//! The text of PTX: finds an entry point in a module and splits it into statements.
#![expect(clippy::string_slice, reason = "at places that `find` gave, or that follow a letter of ASCII")]

use std::collections::HashMap;

use super::fault::{Fault, FaultKind, Result};

/// Most registers of a bank that a text may declare: NVRTC gives each value one of its own, some ten thousand in the largest kernels.
const MOST_REGISTERS: u32 = 1 << 20;
/// Most bytes of a kernel's parameters, by the ISA.
const MOST_PARAM_BYTES: usize = 32_764;

/// Width of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bank {
    /// One bit: a predicate.
    Bit,
    /// 16 or 32 bits.
    Word,
    /// 64 bits.
    Double,
}

/// A register of the text: its bank, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Register {
    pub bank: Bank,
    pub number: u32,
}

/// An operand as it is written.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand<'t> {
    Register(Register),
    /// `{a, b, …}`.
    Vector(Vec<Operand<'t>>),
    /// `a|b`: two results.
    Pair(Box<Operand<'t>>, Box<Operand<'t>>),
    /// Bits of a number, which fit all widths for integers.
    Number(u64),
    /// `[base + offset]`.
    Address(Box<Operand<'t>>, i64),
    /// A label, a variable, a special register.
    Symbol(&'t str),
    /// `_`: a result that nobody wants.
    Nothing,
}

/// An instruction as it is written.
#[derive(Clone, Debug)]
pub struct Statement<'t> {
    pub line: u32,
    /// The whole of it.
    pub text: &'t str,
    /// The predicate that it is executed under, and whether that must be false.
    pub guard: Option<(Register, bool)>,
    pub opcode: &'t str,
    pub operands: Vec<Operand<'t>>,
    /// The bytes of a load that are used, where the compiler says so: a bit for each.
    pub used_bytes: Option<u32>,
}

/// An entry point.
#[derive(Debug)]
pub struct Entry<'t> {
    /// Names and offsets of its parameters.
    pub params: HashMap<&'t str, u64>,
    /// Bytes of all parameters.
    pub params_bytes: usize,
    /// Names of dynamic shared memory.
    pub shared: Vec<&'t str>,
    pub statements: Vec<Statement<'t>>,
    /// Labels: the statement that follows.
    pub labels: HashMap<&'t str, u32>,
    /// How many registers each bank has.
    pub registers: [u32; 3],
}

impl<'t> Entry<'t> {
    /// Reads the entry point `name` of a module.
    pub fn find(module: &'t str, name: &str) -> Result<Self> {
        let (start, end) = extent(module, name)?;
        let first_line = module[..start].matches('\n').count() as u32 + 1;
        let mut reader = Reader {
            text: &module[..end],
            at: start,
            line: first_line,
            counts: [0; 3],
            scopes: vec![HashMap::new()],
            used_bytes: None,
        };
        let mut entry = Entry {
            params: HashMap::new(),
            params_bytes: 0,
            shared: dynamic_shared(module),
            statements: Vec::new(),
            labels: HashMap::new(),
            registers: [0; 3],
        };
        reader.header(&mut entry)?;
        reader.body(&mut entry)?;
        entry.registers = reader.counts;
        Ok(entry)
    }
}

/// The part of the module from an entry's parameters to the end of its body.
fn extent(module: &str, name: &str) -> Result<(usize, usize)> {
    let unsupported = |problem: String| Fault::new(FaultKind::Unsupported, problem);
    let mut from = 0;
    while let Some(found) = module[from..].find(".entry") {
        let after = from + found + ".entry".len();
        let rest = module[after..].trim_start();
        let here = module.len() - rest.len();
        if rest.strip_prefix(name).is_some_and(|rest| rest.starts_with(|c: char| !is_name(c))) {
            let start = here + name.len();
            let mut depth = 0;
            for (i, byte) in module.as_bytes()[start..].iter().enumerate() {
                match byte {
                    b'{' => depth += 1,
                    b'}' if depth == 1 => return Ok((start, start + i + 1)),
                    b'}' => depth -= 1,
                    _ => {}
                }
            }
            return Err(unsupported(format!("the body of {name} does not end")));
        }
        from = after;
    }
    Err(unsupported(format!("the PTX has no entry point {name}")))
}

/// Names of arrays in dynamic shared memory.
fn dynamic_shared(module: &str) -> Vec<&str> {
    let declared = module.lines().filter_map(|line| line.trim_start().strip_prefix(".extern .shared"));
    declared.filter_map(|line| line.split_whitespace().last()?.strip_suffix("[];")).collect()
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%' | '.')
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    line: u32,
    counts: [u32; 3],
    /// Registers by name, the first of so many, innermost scope last.
    scopes: Vec<HashMap<&'t str, (Register, u32)>>,
    used_bytes: Option<u32>,
}

impl<'t> Reader<'t> {
    fn unsupported(&self, problem: impl AsRef<str>) -> Box<Fault> {
        Fault::new(FaultKind::Unsupported, format!("line {} of the PTX: {}", self.line, problem.as_ref()))
    }

    /// Skips white space and comments.
    fn skip(&mut self) {
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(self.at) {
                Some(b'\n') => (self.at, self.line) = (self.at + 1, self.line + 1),
                Some(byte) if byte.is_ascii_whitespace() => self.at += 1,
                Some(b'/') if bytes.get(self.at + 1) == Some(&b'/') => {
                    self.at += self.text[self.at..].find('\n').unwrap_or(self.text.len() - self.at);
                }
                _ => return,
            }
        }
    }

    /// The text up to the next `end`, which is skipped too.
    fn until(&mut self, end: char) -> Result<&'t str> {
        let rest = &self.text[self.at..];
        let Some(len) = rest.find(end) else { return Err(self.unsupported(format!("a `{end}` is missing"))) };
        self.at += len + end.len_utf8();
        self.line += rest[..len].matches('\n').count() as u32;
        Ok(rest[..len].trim())
    }

    /// Parameters, and directives before the body.
    fn header(&mut self, entry: &mut Entry<'t>) -> Result<()> {
        self.until('(')?;
        for param in self.until(')')?.split(',').map(str::trim).filter(|param| !param.is_empty()) {
            let words: Vec<_> = param.split_whitespace().collect();
            let Some(declared) = words.last() else { continue };
            let (name, count) =
                declared.split_once('[').map_or((*declared, "1"), |(name, n)| (name, n.trim_end_matches(']')));
            let size = words.iter().find_map(|word| type_bytes(word));
            let Some((size, count)) = size.zip(count.parse::<usize>().ok()) else {
                return Err(self.unsupported(format!("the parameter `{param}`")));
            };
            let align = words.iter().position(|word| *word == ".align").and_then(|i| words.get(i + 1)?.parse().ok());
            let offset = entry.params_bytes.checked_next_multiple_of(align.unwrap_or(size).max(1));
            let end = offset.zip(size.checked_mul(count)).and_then(|(offset, bytes)| offset.checked_add(bytes));
            let Some((offset, end)) = offset.zip(end.filter(|end| *end <= MOST_PARAM_BYTES)) else {
                return Err(self.unsupported(format!("the parameter `{param}`: more than {MOST_PARAM_BYTES} bytes")));
            };
            entry.params.insert(name, offset as u64);
            entry.params_bytes = end;
        }
        self.until('{')?;
        Ok(())
    }

    fn body(&mut self, entry: &mut Entry<'t>) -> Result<()> {
        loop {
            self.skip();
            match self.text.as_bytes().get(self.at) {
                None => return Err(self.unsupported("the body does not end")),
                Some(b'{') => {
                    self.at += 1;
                    self.scopes.push(HashMap::new());
                }
                Some(b'}') => {
                    self.at += 1;
                    self.scopes.pop();
                    if self.scopes.is_empty() {
                        return Ok(());
                    }
                }
                Some(b'.') => self.directive()?,
                Some(_) => self.label_or_instruction(entry)?,
            }
        }
    }

    fn directive(&mut self) -> Result<()> {
        let text = self.until(';')?;
        let (directive, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        match directive {
            ".reg" => {
                let Some((class, names)) = rest.trim().split_once(char::is_whitespace) else {
                    return Err(self.unsupported(text));
                };
                let bank = match (class, type_bytes(class)) {
                    (".pred", _) => Bank::Bit,
                    (_, Some(1 | 2 | 4)) => Bank::Word,
                    (_, Some(8)) => Bank::Double,
                    _ => return Err(self.unsupported(format!("registers of type {class}"))),
                };
                for name in names.split(',').map(str::trim) {
                    self.declare(bank, name)?;
                }
                Ok(())
            }
            ".pragma" => {
                let mask = rest.trim().trim_matches('"').strip_prefix("used_bytes_mask");
                if let Some(mask) = mask {
                    let mask = parse_integer(mask.trim()).and_then(|mask| u32::try_from(mask).ok());
                    self.used_bytes = Some(mask.ok_or_else(|| self.unsupported(text))?);
                }
                Ok(())
            }
            ".loc" | ".file" => Ok(()),
            _ => Err(self.unsupported(format!("the directive `{text}`"))),
        }
    }

    /// `%r<12>` declares `%r0` to `%r11`; their names are kept as they occur in the text.
    fn declare(&mut self, bank: Bank, name: &'t str) -> Result<()> {
        let count = &mut self.counts[bank as usize];
        let scope = self.scopes.last_mut();
        let first = Register { bank, number: *count };
        let (stem, many) = name.split_once('<').map_or((name, None), |(stem, n)| (stem, Some(n.trim_end_matches('>'))));
        let many = match many.map(str::parse::<u32>) {
            None => 1,
            Some(Ok(many)) => many,
            Some(Err(_)) => return Err(self.unsupported(format!("the registers {name}"))),
        };
        match count.checked_add(many).filter(|count| *count <= MOST_REGISTERS) {
            Some(all) => *count = all,
            None => return Err(self.unsupported(format!("the registers {name}: more than {MOST_REGISTERS} of a kind"))),
        }
        if let Some(scope) = scope {
            scope.insert(stem, (first, many));
        }
        Ok(())
    }

    /// The register of this name: declared as it is, or one of many.
    fn register(&self, name: &str) -> Option<Register> {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        self.scopes.iter().rev().find_map(|scope| {
            scope.get(name).map(|(first, _)| *first).or_else(|| {
                let (first, many) = scope.get(stem)?;
                let number = name[stem.len()..].parse::<u32>().ok().filter(|number| number < many)?;
                Some(Register { number: first.number + number, ..*first })
            })
        })
    }

    fn label_or_instruction(&mut self, entry: &mut Entry<'t>) -> Result<()> {
        let rest = &self.text[self.at..];
        let name = &rest[..rest.find(|c: char| !is_name(c)).unwrap_or(rest.len())];
        if !name.is_empty() && rest[name.len()..].starts_with(':') && !rest[name.len()..].starts_with("::") {
            entry.labels.insert(name, entry.statements.len() as u32);
            self.at += name.len() + 1;
            return Ok(());
        }
        let line = self.line;
        let text = self.until(';')?;
        let (guard, rest) = match text.strip_prefix('@') {
            None => (None, text),
            Some(guarded) => {
                let (name, rest) = guarded.split_once(char::is_whitespace).ok_or_else(|| self.unsupported(text))?;
                let (name, negated) = name.strip_prefix('!').map_or((name, false), |name| (name, true));
                let register = self.register(name).filter(|register| register.bank == Bank::Bit);
                let register = register.ok_or_else(|| self.unsupported(format!("`{text}`: no predicate {name}")))?;
                (Some((register, negated)), rest.trim_start())
            }
        };
        let (opcode, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let mut operands = Vec::new();
        let mut rest = rest.trim();
        while !rest.is_empty() {
            let (operand, after) = self.operand(rest)?;
            operands.push(operand);
            let after = after.trim_start();
            rest = match after.strip_prefix(',') {
                Some(more) => more.trim_start(),
                None if after.is_empty() => after,
                None => return Err(self.unsupported(format!("`{text}`"))),
            };
        }
        let used_bytes = self.used_bytes.take();
        entry.statements.push(Statement { line, text, guard, opcode, operands, used_bytes });
        Ok(())
    }

    /// The operand that `text` begins with, and what follows.
    fn operand(&self, text: &'t str) -> Result<(Operand<'t>, &'t str)> {
        if let Some(inner) = text.strip_prefix('{') {
            let (inner, after) = inner.split_once('}').ok_or_else(|| self.unsupported(text))?;
            let parts = inner.split(',').map(|part| self.simple(part.trim()));
            return Ok((Operand::Vector(parts.collect::<Result<_>>()?), after));
        }
        if let Some(inner) = text.strip_prefix('[') {
            let (inner, after) = inner.split_once(']').ok_or_else(|| self.unsupported(text))?;
            let (base, offset) = inner.split_once('+').map_or((inner, "0"), |(base, offset)| (base, offset));
            let offset = parse_integer(offset.trim()).ok_or_else(|| self.unsupported(text))?;
            return Ok((Operand::Address(Box::new(self.simple(base.trim())?), offset as i64), after));
        }
        let end = text.find(',').unwrap_or(text.len());
        let (word, after) = (text[..end].trim(), &text[end..]);
        if let Some((first, second)) = word.split_once('|') {
            let pair = Operand::Pair(Box::new(self.simple(first.trim())?), Box::new(self.simple(second.trim())?));
            return Ok((pair, after));
        }
        Ok((self.simple(word)?, after))
    }

    fn simple(&self, word: &'t str) -> Result<Operand<'t>> {
        if word == "_" {
            return Ok(Operand::Nothing);
        }
        if let Some(register) = self.register(word) {
            return Ok(Operand::Register(register));
        }
        if word.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            return parse_number(word)
                .map(Operand::Number)
                .ok_or_else(|| self.unsupported(format!("the number {word}")));
        }
        if !word.is_empty() && word.chars().all(is_name) {
            return Ok(Operand::Symbol(word));
        }
        Err(self.unsupported(format!("the operand `{word}`")))
    }
}

/// Bytes of a type such as `.u32`.
pub fn type_bytes(name: &str) -> Option<usize> {
    let bits = name.trim_start_matches('.').strip_prefix(['b', 'u', 's', 'f'])?;
    match bits {
        "8" => Some(1),
        "16" => Some(2),
        "32" => Some(4),
        "64" => Some(8),
        _ => None,
    }
}

fn parse_number(word: &str) -> Option<u64> {
    let float = |digits: &str| u64::from_str_radix(digits, 16).ok();
    match word.get(..2) {
        Some("0f" | "0F") => float(word.get(2..).unwrap_or_default()),
        Some("0d" | "0D") => float(word.get(2..).unwrap_or_default()),
        _ => parse_integer(word),
    }
}

fn parse_integer(word: &str) -> Option<u64> {
    let (negative, digits) = word.strip_prefix('-').map_or((false, word), |digits| (true, digits));
    let digits = digits.trim_end_matches('U');
    let value = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok()?,
        None => digits.parse().ok()?,
    };
    Some(if negative { value.wrapping_neg() } else { value })
}
