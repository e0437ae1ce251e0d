//! Registers of a warp, and which of them hold what shared memory held before anything was written there.
//!
//! Such a value is no mistake by itself: threads of padding read and compute what nobody uses. It is one where it becomes an address, or
//! leaves the block. So each register has a mask of the lanes where it is *undefined*, and results of undefined values are undefined.

use super::arithmetic::{Doubles, Function, Words};
use super::instruction::{OPERANDS, Program};
use super::text::Bank;

/// All lanes.
pub const FULL: u32 = u32::MAX;

/// Registers of all lanes, by bank.
#[derive(Clone, Debug, Default)]
pub struct Registers {
    bits: Vec<u32>,
    words: Vec<Words>,
    doubles: Vec<Doubles>,
    /// Lanes in which a register is undefined, by bank.
    undefined: [Vec<u32>; 3],
    /// Whether there ever was one that is.
    any_undefined: bool,
}

/// Puts the results of `lanes` into a register.
fn put<T: Copy>(register: &mut [T; 32], values: &[T; 32], lanes: u32) {
    if lanes == FULL {
        *register = *values;
        return;
    }
    for (lane, value) in values.iter().enumerate() {
        if lanes >> lane & 1 == 1 {
            register[lane] = *value;
        }
    }
}

impl Registers {
    pub fn new(program: &Program) -> Self {
        let [bits, words, doubles] = program.registers;
        let mut registers = Registers {
            bits: vec![0; bits],
            words: vec![[0; 32]; words],
            doubles: vec![[0; 32]; doubles],
            undefined: [vec![0; bits], vec![0; words], vec![0; doubles]],
            any_undefined: false,
        };
        for (place, value) in &program.bit_constants {
            registers.bits[usize::from(*place)] = *value;
        }
        for (place, value) in &program.word_constants {
            registers.words[usize::from(*place)] = [*value; 32];
        }
        for (place, value) in &program.double_constants {
            registers.doubles[usize::from(*place)] = [*value; 32];
        }
        registers
    }

    /// Whether any register is, or ever was, undefined.
    pub fn may_be_undefined(&self) -> bool {
        self.any_undefined
    }

    pub fn bit(&self, register: u16) -> u32 {
        self.bits[usize::from(register)]
    }

    pub fn word(&self, register: u16) -> &Words {
        &self.words[usize::from(register)]
    }

    pub fn double(&self, register: u16) -> &Doubles {
        &self.doubles[usize::from(register)]
    }

    pub fn put_bits(&mut self, register: u16, values: u32, lanes: u32) {
        let bits = &mut self.bits[usize::from(register)];
        *bits = *bits & !lanes | values & lanes;
        self.define(Bank::Bit, register, 0, lanes);
    }

    pub fn put_words(&mut self, register: u16, values: &Words, lanes: u32) {
        put(&mut self.words[usize::from(register)], values, lanes);
        self.define(Bank::Word, register, 0, lanes);
    }

    pub fn put_doubles(&mut self, register: u16, values: &Doubles, lanes: u32) {
        put(&mut self.doubles[usize::from(register)], values, lanes);
        self.define(Bank::Double, register, 0, lanes);
    }

    /// Says in which of `lanes` a register is undefined.
    pub fn define(&mut self, bank: Bank, register: u16, undefined: u32, lanes: u32) {
        if self.any_undefined || undefined & lanes != 0 {
            self.any_undefined = true;
            let known = &mut self.undefined[bank as usize][usize::from(register)];
            *known = *known & !lanes | undefined & lanes;
        }
    }

    /// The lanes in which a register is undefined.
    pub fn undefined(&self, bank: Bank, register: u16) -> u32 {
        if self.any_undefined { self.undefined[bank as usize][usize::from(register)] } else { 0 }
    }

    /// Computes a result of registers in `lanes`.
    pub fn compute(&mut self, function: Function, r: &[u16; OPERANDS], lanes: u32) {
        let undefined = if self.any_undefined { self.undefined_result(function, r) } else { 0 };
        match function {
            Function::WW(f) => self.put_words(r[0], &f(self.word(r[1])), lanes),
            Function::WWW(f) => self.put_words(r[0], &f(self.word(r[1]), self.word(r[2])), lanes),
            Function::WWWW(f) => {
                self.put_words(r[0], &f(self.word(r[1]), self.word(r[2]), self.word(r[3])), lanes);
            }
            Function::WWWWW(f) => {
                let values = f(self.word(r[1]), self.word(r[2]), self.word(r[3]), self.word(r[4]));
                self.put_words(r[0], &values, lanes);
            }
            Function::DD(f) => self.put_doubles(r[0], &f(self.double(r[1])), lanes),
            Function::DDD(f) => self.put_doubles(r[0], &f(self.double(r[1]), self.double(r[2])), lanes),
            Function::DDDD(f) => {
                self.put_doubles(r[0], &f(self.double(r[1]), self.double(r[2]), self.double(r[3])), lanes);
            }
            Function::DDW(f) => self.put_doubles(r[0], &f(self.double(r[1]), self.word(r[2])), lanes),
            Function::DW(f) => self.put_doubles(r[0], &f(self.word(r[1])), lanes),
            Function::WD(f) => self.put_words(r[0], &f(self.double(r[1])), lanes),
            Function::DWW(f) => self.put_doubles(r[0], &f(self.word(r[1]), self.word(r[2])), lanes),
            Function::DWWD(f) => {
                self.put_doubles(r[0], &f(self.word(r[1]), self.word(r[2]), self.double(r[3])), lanes);
            }
            Function::PWW(f) => self.put_bits(r[0], f(self.word(r[1]), self.word(r[2])), lanes),
            Function::PDD(f) => self.put_bits(r[0], f(self.double(r[1]), self.double(r[2])), lanes),
            Function::WWWP(f) => self.put_words(r[0], &f(self.word(r[1]), self.word(r[2]), &self.bit(r[3])), lanes),
            Function::DDDP(f) => {
                self.put_doubles(r[0], &f(self.double(r[1]), self.double(r[2]), &self.bit(r[3])), lanes);
            }
            Function::PP(f) => self.put_bits(r[0], f(&self.bit(r[1])), lanes),
            Function::PPP(f) => self.put_bits(r[0], f(&self.bit(r[1]), &self.bit(r[2])), lanes),
        }
        if undefined != 0 {
            self.define(function.banks().0, r[0], undefined, lanes);
        }
    }

    /// The lanes in which a result is undefined. A selection is where what it selects is.
    fn undefined_result(&self, function: Function, r: &[u16; OPERANDS]) -> u32 {
        let (_, arguments) = function.banks();
        let of = |index: usize| self.undefined(arguments[index], r[index + 1]);
        match function {
            Function::WWWP(_) | Function::DDDP(_) => {
                let chosen = self.bit(r[3]);
                of(2) | chosen & of(0) | !chosen & of(1)
            }
            _ => (0..arguments.len()).fold(0, |undefined, index| undefined | of(index)),
        }
    }
}
