//! From the text of an entry point to a [`Program`]: operands, registers and where they are kept. What each instruction becomes stands in `statements`.

use std::collections::HashMap;

use super::fault::{Fault, FaultKind, Result};
use super::flow::{self, Step};
use super::instruction::*;
use super::text::{Bank, Entry, Operand, Register, Statement};

/// Where dynamic shared memory begins in a block's window: what is below belongs to the system, as on compute capability 9.0.
pub const SHARED_BASE: u64 = 1024;

/// Reads the entry point `name` of a module.
pub fn program(module: &str, name: &str) -> Result<Program> {
    let entry = Entry::find(module, name)?;
    let mut decoder =
        Decoder { entry: &entry, counts: entry.registers, constants: HashMap::new(), drafts: Vec::new(), at: 0 };
    let mut starts = Vec::with_capacity(entry.statements.len() + 1);
    for (at, statement) in entry.statements.iter().enumerate() {
        starts.push(decoder.drafts.len() as u32);
        decoder.at = at;
        decoder.statement(statement)?;
    }
    starts.push(decoder.drafts.len() as u32);
    // A label may stand at the end of the body.
    decoder.at = entry.statements.len().saturating_sub(1);
    decoder.push(Operation::Exit, &[], &[]);
    decoder.finish(name, &starts)
}

/// An instruction whose registers are those of the text.
pub(super) struct Draft {
    operation: Operation,
    guard: Option<(Register, bool)>,
    writes: Vec<Register>,
    reads: Vec<Register>,
    pub(super) aligned: bool,
    statement: usize,
}

pub(super) struct Decoder<'t> {
    pub(super) entry: &'t Entry<'t>,
    /// Registers of each bank, those that decoding adds included.
    counts: [u32; 3],
    constants: HashMap<(Bank, u64), Register>,
    pub(super) drafts: Vec<Draft>,
    /// The statement that is being decoded.
    at: usize,
}

impl<'t> Decoder<'t> {
    pub(super) fn unsupported(&self, problem: &str) -> Box<Fault> {
        let (line, text) = self.entry.statements.get(self.at).map_or((0, ""), |s| (s.line, s.text));
        Fault::new(FaultKind::Unsupported, format!("line {line} of the PTX, `{text}`: {problem}"))
    }

    pub(super) fn push(&mut self, operation: Operation, writes: &[Register], reads: &[Register]) {
        let guard = self.entry.statements.get(self.at).and_then(|statement| statement.guard);
        let (writes, reads) = (writes.to_vec(), reads.to_vec());
        self.drafts.push(Draft { operation, guard, writes, reads, aligned: false, statement: self.at });
    }

    /// A register that the text does not have.
    pub(super) fn fresh(&mut self, bank: Bank) -> Register {
        let count = &mut self.counts[bank as usize];
        *count += 1;
        Register { bank, number: *count - 1 }
    }

    fn constant(&mut self, bank: Bank, value: u64) -> Register {
        let value = if bank == Bank::Word { value & 0xffff_ffff } else { value };
        if let Some(register) = self.constants.get(&(bank, value)) {
            return *register;
        }
        let register = self.fresh(bank);
        self.constants.insert((bank, value), register);
        register
    }

    pub(super) fn operand(&self, statement: &'t Statement<'t>, index: usize) -> Result<&'t Operand<'t>> {
        statement.operands.get(index).ok_or_else(|| self.unsupported("too few operands"))
    }

    pub(super) fn read(&mut self, operand: &Operand<'_>, bank: Bank) -> Result<Register> {
        match operand {
            Operand::Register(register) if register.bank == bank => Ok(*register),
            Operand::Register(_) => Err(self.unsupported("a register is of another width than the instruction")),
            Operand::Number(value) if bank != Bank::Bit => Ok(self.constant(bank, *value)),
            Operand::Number(value) => Ok(self.constant(bank, if *value == 0 { 0 } else { 0xffff_ffff })),
            Operand::Symbol(name) => self.symbol(name, bank),
            _ => Err(self.unsupported("an operand that this instruction does not have")),
        }
    }

    fn symbol(&mut self, name: &str, bank: Bank) -> Result<Register> {
        if let Some(offset) = self.entry.params.get(name) {
            return Ok(self.constant(bank, *offset));
        }
        if self.entry.shared.contains(&name) {
            return Ok(self.constant(bank, SHARED_BASE));
        }
        if name == "WARP_SZ" {
            return Ok(self.constant(bank, 32));
        }
        let Some(what) = special(name) else {
            return Err(self.unsupported(&format!("no register or variable {name}")));
        };
        let register = self.fresh(bank);
        self.push(Operation::Special { what, double: bank == Bank::Double }, &[register], &[]);
        Ok(register)
    }

    pub(super) fn write(&mut self, operand: &Operand<'_>, bank: Bank) -> Result<Register> {
        match operand {
            Operand::Register(register) if register.bank == bank => Ok(*register),
            Operand::Register(_) => Err(self.unsupported("a register is of another width than the instruction")),
            Operand::Nothing => Ok(self.fresh(bank)),
            _ => Err(self.unsupported("a result that is no register")),
        }
    }

    /// The elements of a vector; of anything else itself.
    pub(super) fn elements<'a>(operand: &'a Operand<'a>) -> &'a [Operand<'a>] {
        match operand {
            Operand::Vector(elements) => elements,
            single => std::slice::from_ref(single),
        }
    }

    pub(super) fn reads(&mut self, operand: &Operand<'_>, bank: Bank, count: usize) -> Result<Vec<Register>> {
        let elements = Self::elements(operand);
        if elements.len() != count {
            return Err(self.unsupported(&format!("{} registers where {count} are expected", elements.len())));
        }
        elements.iter().map(|element| self.read(element, bank)).collect()
    }

    pub(super) fn writes(&mut self, operand: &Operand<'_>, bank: Bank, count: usize) -> Result<Vec<Register>> {
        let elements = Self::elements(operand);
        if elements.len() != count {
            return Err(self.unsupported(&format!("{} registers where {count} are expected", elements.len())));
        }
        elements.iter().map(|element| self.write(element, bank)).collect()
    }

    /// The register of an address, and what is added to it.
    pub(super) fn address(&mut self, operand: &Operand<'_>) -> Result<(Register, i64)> {
        match operand {
            Operand::Address(base, offset) => {
                let register = match &**base {
                    Operand::Register(register) if register.bank != Bank::Bit => *register,
                    base => self.read(base, Bank::Double)?,
                };
                Ok((register, *offset))
            }
            _ => Err(self.unsupported("an address is expected")),
        }
    }

    /// Gives registers their places, and branches their targets.
    fn finish(mut self, name: &str, starts: &[u32]) -> Result<Program> {
        let [bits, words, doubles] = self.counts;
        let first = [0, bits, bits + words];
        let flat = |register: &Register| first[register.bank as usize] + register.number;
        let constants: std::collections::HashSet<Register> = self.constants.values().copied().collect();
        let varies = |registers: &[Register]| -> Vec<u32> {
            registers.iter().filter(|register| !constants.contains(register)).map(flat).collect()
        };
        for draft in &mut self.drafts {
            if let Operation::Branch { target, .. } = &mut draft.operation {
                *target = starts[*target as usize];
            }
        }
        let steps: Vec<Step> = self
            .drafts
            .iter()
            .map(|draft| {
                let mut reads = varies(&draft.reads);
                if let Some((guard, _)) = &draft.guard {
                    reads.push(flat(guard));
                    reads.extend(varies(&draft.writes));
                }
                let (target, falls_through) = match draft.operation {
                    Operation::Branch { target, .. } => (Some(target), draft.guard.is_some()),
                    Operation::Exit => (None, draft.guard.is_some()),
                    _ => (None, true),
                };
                Step { target, falls_through, reads, writes: varies(&draft.writes) }
            })
            .collect();
        let joins = flow::joins(&steps);
        let lifetimes = flow::lifetimes(&steps, (bits + words + doubles) as usize);
        let bounds = [(0, bits), (bits, bits + words), (bits + words, bits + words + doubles)];
        let mut places = Vec::new();
        let mut registers = [0usize; 3];
        for (bank, (from, to)) in bounds.into_iter().enumerate() {
            let (of_bank, count) = flow::places(&lifetimes[from as usize..to as usize]);
            places.extend(of_bank);
            registers[bank] = count;
        }
        let (mut word_constants, mut double_constants, mut bit_constants) = (Vec::new(), Vec::new(), Vec::new());
        for ((bank, value), register) in &self.constants {
            let place = registers[*bank as usize];
            registers[*bank as usize] += 1;
            places[flat(register) as usize] = place as u32;
            match bank {
                Bank::Bit => bit_constants.push((place as u16, *value as u32)),
                Bank::Word => word_constants.push((place as u16, *value as u32)),
                Bank::Double => double_constants.push((place as u16, *value)),
            }
        }
        if registers.iter().any(|count| *count > usize::from(u16::MAX)) {
            return Err(Fault::new(FaultKind::Unsupported, format!("{name} has too many registers")));
        }
        let place = |register: &Register| places[flat(register) as usize] as u16;
        let mut instructions = Vec::with_capacity(self.drafts.len());
        for (draft, join) in self.drafts.iter().zip(joins) {
            let mut operation = draft.operation;
            if let Operation::Branch { join: at, .. } = &mut operation {
                *at = join;
            }
            let mut operands = [0; OPERANDS];
            let all = draft.writes.iter().chain(&draft.reads);
            for (operand, register) in operands.iter_mut().zip(all) {
                *operand = place(register);
            }
            let guard = draft.guard.as_ref().map(|(register, negated)| (place(register), *negated));
            let line = self.entry.statements.get(draft.statement).map_or(0, |statement| statement.line);
            instructions.push(Instruction { operation, guard, registers: operands, aligned: draft.aligned, line });
        }
        let texts =
            self.drafts.iter().map(|draft| self.entry.statements.get(draft.statement).map_or("", |s| s.text).into());
        Ok(Program {
            name: name.to_owned(),
            texts: texts.collect(),
            instructions,
            params_bytes: self.entry.params_bytes,
            registers,
            bit_constants,
            word_constants,
            double_constants,
        })
    }
}

/// The register that a name such as `%tid.x` means.
fn special(name: &str) -> Option<Special> {
    let (stem, dimension) = match name.rsplit_once('.') {
        Some((stem, "x")) => (stem, 0),
        Some((stem, "y")) => (stem, 1),
        Some((stem, "z")) => (stem, 2),
        _ => (name, 0),
    };
    Some(match stem {
        "%tid" => Special::ThreadIndex(dimension),
        "%ntid" => Special::BlockThreads(dimension),
        "%ctaid" => Special::BlockIndex(dimension),
        "%nctaid" => Special::GridBlocks(dimension),
        "%laneid" => Special::LaneIndex,
        "%warpid" => Special::WarpIndex,
        "%lanemask_lt" => Special::LaneMaskLess,
        "%lanemask_le" => Special::LaneMaskLessEqual,
        "%lanemask_eq" => Special::LaneMaskEqual,
        "%lanemask_gt" => Special::LaneMaskGreater,
        "%lanemask_ge" => Special::LaneMaskGreaterEqual,
        "%cluster_ctarank" => Special::ClusterRank,
        "%cluster_nctarank" => Special::ClusterBlocks,
        "%clusterid" => Special::ClusterIndex(dimension),
        "%nclusterid" => Special::Clusters(dimension),
        "%smid" => Special::Multiprocessor,
        "%clock" | "%clock64" | "%globaltimer" | "%globaltimer_lo" => Special::Clock,
        _ => return None,
    })
}
