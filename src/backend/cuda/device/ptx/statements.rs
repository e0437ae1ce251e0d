//! What each instruction of the text becomes, by its mnemonic.

use super::arithmetic::{self, Function};
use super::decode::Decoder;
use super::fault::{Fault, Result};
use super::instruction::*;
use super::text::{Bank, Operand, Register, Statement, type_bytes};

impl<'t> Decoder<'t> {
    /// Decodes a statement.
    pub(super) fn statement(&mut self, statement: &'t Statement<'t>) -> Result<()> {
        let before = self.drafts.len();
        let (opcode, operands) = (statement.opcode, &statement.operands);
        let parts: Vec<&str> = opcode.split('.').collect();
        match parts[0] {
            "bra" => {
                let label = match self.operand(statement, 0)? {
                    Operand::Symbol(label) => self.entry.labels.get(label),
                    _ => None,
                };
                let target = *label.ok_or_else(|| self.unsupported("no such label"))?;
                self.push(Operation::Branch { target, join: NOWHERE }, &[], &[]);
            }
            "ret" | "exit" => self.push(Operation::Exit, &[], &[]),
            "ld" | "ldu" => self.load(statement, &parts)?,
            "st" if parts.get(1) == Some(&"async") => self.store_async(statement, &parts)?,
            "st" => self.store(statement, &parts)?,
            "atom" | "red" => self.atomic(statement, &parts)?,
            "prefetch" | "prefetchu" | "discard" | "applypriority" | "griddepcontrol" | "setmaxnreg" => {
                self.push(Operation::Nothing, &[], &[]);
            }
            "nanosleep" => self.push(Operation::Pause, &[], &[]),
            "fence" | "membar" => self.fence(&parts)?,
            "shfl" => {
                let kind = match parts.get(2).copied() {
                    Some("up") => Shuffle::Up,
                    Some("down") => Shuffle::Down,
                    Some("bfly") => Shuffle::Butterfly,
                    Some("idx") => Shuffle::Index,
                    _ => return Err(self.unsupported("this shuffle")),
                };
                let mut writes = Vec::new();
                let predicate = match self.operand(statement, 0)? {
                    Operand::Pair(value, predicate) => {
                        writes.push(self.write(value, Bank::Word)?);
                        writes.push(self.write(predicate, Bank::Bit)?);
                        true
                    }
                    value => {
                        writes.push(self.write(value, Bank::Word)?);
                        false
                    }
                };
                let mut reads = Vec::new();
                for i in 1..5 {
                    let operand = self.operand(statement, i)?;
                    reads.push(self.read(operand, Bank::Word)?);
                }
                self.push(Operation::Shuffle { kind, predicate }, &writes, &reads);
            }
            "vote" => {
                let kind = match parts.get(2).copied() {
                    Some("all") => Vote::All,
                    Some("any") => Vote::Any,
                    Some("uni") => Vote::Uniform,
                    Some("ballot") => Vote::Ballot,
                    _ => return Err(self.unsupported("this vote")),
                };
                let bank = if kind == Vote::Ballot { Bank::Word } else { Bank::Bit };
                let result = self.write(self.operand(statement, 0)?, bank)?;
                let value = self.negatable(statement, 1)?;
                let mask = self.read(self.operand(statement, 2)?, Bank::Word)?;
                self.push(Operation::Vote(kind), &[result], &[value, mask]);
            }
            "activemask" => {
                let result = self.write(self.operand(statement, 0)?, Bank::Word)?;
                self.push(Operation::ActiveMask, &[result], &[]);
            }
            "redux" => {
                let combine = combine(parts.get(2).copied(), parts.last().copied());
                let combine = combine.ok_or_else(|| self.unsupported("this reduction"))?;
                let result = self.write(self.operand(statement, 0)?, Bank::Word)?;
                let value = self.read(self.operand(statement, 1)?, Bank::Word)?;
                let mask = self.read(self.operand(statement, 2)?, Bank::Word)?;
                self.push(Operation::Reduce(combine), &[result], &[value, mask]);
            }
            "bar" | "barrier" => self.barrier(statement, &parts)?,
            "mma" => self.mma(statement, opcode)?,
            "ldmatrix" => {
                let count = match parts.get(4).copied() {
                    Some("x1") => 1,
                    Some("x2") => 2,
                    Some("x4") => 4,
                    _ => 0,
                };
                let transposed = parts.contains(&"trans");
                if count == 0 || parts.get(3) != Some(&"m8n8") || parts.last() != Some(&"b16") {
                    return Err(self.unsupported("this form of ldmatrix"));
                }
                let writes = self.writes(self.operand(statement, 0)?, Bank::Word, count)?;
                let (address, offset) = self.shared_address(statement, 1)?;
                self.push(Operation::LoadMatrix { count: count as u8, transposed, offset }, &writes, &[address]);
            }
            "mapa" => {
                let double = parts.last() == Some(&"u64");
                if parts.get(1) != Some(&"shared::cluster") {
                    return Err(self.unsupported("a generic address of a cluster"));
                }
                let bank = if double { Bank::Double } else { Bank::Word };
                let result = self.write(self.operand(statement, 0)?, bank)?;
                let address = self.read(self.operand(statement, 1)?, bank)?;
                let rank = self.read(self.operand(statement, 2)?, Bank::Word)?;
                self.push(Operation::MapCluster { double }, &[result], &[address, rank]);
            }
            "mbarrier" => self.mbarrier(statement, &parts)?,
            "cp" => self.copy_async(statement, &parts)?,
            "cvta" if parts.contains(&"shared") => {
                // The window of shared memory stands for itself: see `memory`.
                let bank = if parts.last() == Some(&"u64") { Bank::Double } else { Bank::Word };
                let result = self.write(self.operand(statement, 0)?, bank)?;
                let address = self.read(self.operand(statement, 1)?, bank)?;
                let same = if bank == Bank::Double { "mov.b64" } else { "mov.b32" };
                let function = arithmetic::find(same).ok_or_else(|| self.unsupported("this address"))?;
                self.push(Operation::Compute(function), &[result], &[address]);
            }
            "mov" if operands.iter().any(|operand| matches!(operand, Operand::Vector(_))) => {
                self.repack(statement, opcode)?
            }
            "setp" if parts.len() == 4 && matches!(parts[2], "and" | "or" | "xor") => {
                let compare = arithmetic::find(&format!("setp.{}.{}", parts[1], parts[3]));
                let combine = arithmetic::find(&format!("{}.pred", parts[2]));
                let (Some(compare), Some(combine)) = (compare, combine) else { return Err(self.unknown(opcode)) };
                let bank = if matches!(compare, Function::PWW(_)) { Bank::Word } else { Bank::Double };
                let reads =
                    [self.read(self.operand(statement, 1)?, bank)?, self.read(self.operand(statement, 2)?, bank)?];
                let between = self.fresh(Bank::Bit);
                self.push(Operation::Compute(compare), &[between], &reads);
                let result = self.write(self.operand(statement, 0)?, Bank::Bit)?;
                let other = self.negatable(statement, 3)?;
                self.push(Operation::Compute(combine), &[result], &[between, other]);
            }
            _ => self.compute(statement, opcode)?,
        }
        let aligned = parts.contains(&"aligned") || matches!(parts[..], ["bar", "sync" | "arrive" | "red", ..]);
        self.drafts[before..].iter_mut().for_each(|draft| draft.aligned = aligned);
        Ok(())
    }

    fn unknown(&self, opcode: &str) -> Box<Fault> {
        self.unsupported(&format!(
            "the PTX interpreter does not have the instruction {opcode}; it belongs into the table of its family"
        ))
    }

    /// A predicate that may be written with a `!`.
    fn negatable(&mut self, statement: &'t Statement<'t>, index: usize) -> Result<Register> {
        let operand = self.operand(statement, index)?;
        self.read(operand, Bank::Bit)
    }

    fn compute(&mut self, statement: &'t Statement<'t>, opcode: &str) -> Result<()> {
        let function = arithmetic::find(opcode).ok_or_else(|| self.unknown(opcode))?;
        let (result, arguments) = function.banks();
        if statement.operands.len() != arguments.len() + 1 {
            return Err(self.unsupported(&format!("{} operands are expected", arguments.len() + 1)));
        }
        let mut reads = Vec::with_capacity(arguments.len());
        for (i, bank) in arguments.iter().enumerate() {
            reads.push(self.read(&statement.operands[i + 1], *bank)?);
        }
        let result = self.write(&statement.operands[0], result)?;
        self.push(Operation::Compute(function), &[result], &reads);
        Ok(())
    }

    /// `mov` between a register and the parts of one.
    fn repack(&mut self, statement: &'t Statement<'t>, opcode: &str) -> Result<()> {
        let (to, from) = (self.operand(statement, 0)?, self.operand(statement, 1)?);
        let double = match opcode {
            "mov.b64" => true,
            "mov.b32" => false,
            _ => return Err(self.unknown(opcode)),
        };
        let whole = if double { Bank::Double } else { Bank::Word };
        let (operation, writes, reads) = if matches!(to, Operand::Vector(_)) {
            let operation = if double { Operation::Split } else { Operation::SplitHalves };
            (operation, self.writes(to, Bank::Word, 2)?, vec![self.read(from, whole)?])
        } else {
            let operation = if double { Operation::Join } else { Operation::JoinHalves };
            (operation, vec![self.write(to, whole)?], self.reads(from, Bank::Word, 2)?)
        };
        self.push(operation, &writes, &reads);
        Ok(())
    }

    /// What the qualifiers of a load or store say.
    fn access(&self, parts: &[&str], offset: i64, address: Register) -> Result<Access> {
        let mut access = Access {
            space: Space::Generic,
            order: Order::Weak,
            bytes: 0,
            count: 1,
            signed: false,
            doubles: false,
            offset,
            used: u32::MAX,
            address: if address.bank == Bank::Word { AddressRegister::Word } else { AddressRegister::Double },
        };
        let mut scope = Scope::System;
        for part in &parts[1..] {
            match *part {
                "param" => access.space = Space::Param,
                "global" => access.space = Space::Global,
                "shared" | "shared::cta" => access.space = Space::Shared,
                "shared::cluster" => access.space = Space::ClusterShared,
                "nc" => access.order = Order::Constant,
                "weak" => access.order = Order::Weak,
                "volatile" | "relaxed" => access.order = Order::Relaxed(Scope::System),
                "acquire" | "release" | "acq_rel" => access.order = Order::Ordered(Scope::System),
                "cta" => scope = Scope::Block,
                "cluster" => scope = Scope::Cluster,
                "gpu" => scope = Scope::Gpu,
                "sys" => scope = Scope::System,
                "v2" => access.count = 2,
                "v4" => access.count = 4,
                "v8" => access.count = 8,
                // Hints to caches.
                "ca"
                | "cg"
                | "cs"
                | "lu"
                | "cv"
                | "wb"
                | "wt"
                | "L1::no_allocate"
                | "L1::evict_normal"
                | "L1::evict_last"
                | "L1::evict_first"
                | "L1::evict_unchanged"
                | "L2::64B"
                | "L2::128B"
                | "L2::256B" => {}
                part => match type_bytes(part) {
                    Some(bytes) => {
                        access.bytes = bytes as u8;
                        access.signed = part.starts_with('s');
                        access.doubles = bytes == 8;
                    }
                    None => return Err(self.unsupported(&format!("the qualifier .{part} of an access"))),
                },
            }
        }
        access.order = match access.order {
            Order::Relaxed(_) => Order::Relaxed(scope),
            Order::Ordered(_) => Order::Ordered(scope),
            order => order,
        };
        if access.bytes == 0 {
            return Err(self.unsupported("an access without a type"));
        }
        Ok(access)
    }

    /// The bank of an access's values, which may be wider than what is in memory.
    fn value_bank(&self, access: &mut Access, operand: &Operand<'_>) -> Bank {
        let register = Self::elements(operand).iter().find_map(|element| match element {
            Operand::Register(register) => Some(register.bank),
            _ => None,
        });
        let bank = register.unwrap_or(if access.bytes == 8 { Bank::Double } else { Bank::Word });
        access.doubles = bank == Bank::Double;
        bank
    }

    fn load(&mut self, statement: &'t Statement<'t>, parts: &[&str]) -> Result<()> {
        let (address, offset) = self.address(self.operand(statement, 1)?)?;
        let mut access = self.access(parts, offset, address)?;
        access.used = statement.used_bytes.unwrap_or(u32::MAX);
        let values = self.operand(statement, 0)?;
        let bank = self.value_bank(&mut access, values);
        let writes = self.writes(values, bank, access.count.into())?;
        self.push(Operation::Load(access), &writes, &[address]);
        Ok(())
    }

    fn store(&mut self, statement: &'t Statement<'t>, parts: &[&str]) -> Result<()> {
        let (address, offset) = self.address(self.operand(statement, 0)?)?;
        let mut access = self.access(parts, offset, address)?;
        let values = self.operand(statement, 1)?;
        let bank = self.value_bank(&mut access, values);
        let mut reads = vec![address];
        reads.extend(self.reads(values, bank, access.count.into())?);
        self.push(Operation::Store(access), &[], &reads);
        Ok(())
    }

    fn atomic(&mut self, statement: &'t Statement<'t>, parts: &[&str]) -> Result<()> {
        let returns = parts[0] == "atom";
        let qualifiers: Vec<&str> = parts.iter().copied().filter(|part| combine(Some(part), None).is_none()).collect();
        let kind = parts[1..].iter().find_map(|part| combine(Some(part), parts.last().copied()));
        let combine = kind.ok_or_else(|| self.unknown(statement.opcode))?;
        let (address, offset) = self.address(self.operand(statement, usize::from(returns))?)?;
        let mut access = self.access(&qualifiers, offset, address)?;
        if access.order == Order::Weak {
            access.order = Order::Relaxed(Scope::Gpu);
        }
        if access.bytes != 4 || parts.last().is_some_and(|part| part.starts_with('f')) {
            return Err(self.unknown(statement.opcode));
        }
        let mut reads = vec![address];
        for operand in &statement.operands[usize::from(returns) + 1..] {
            reads.push(self.read(operand, Bank::Word)?);
        }
        let result = if returns { self.write(&statement.operands[0], Bank::Word)? } else { self.fresh(Bank::Word) };
        self.push(Operation::Atomic { access, combine, returns }, &[result], &reads);
        Ok(())
    }

    fn fence(&mut self, parts: &[&str]) -> Result<()> {
        let mut fence = Fence::Everything;
        let mut scope = Scope::System;
        for part in &parts[1..] {
            match *part {
                "sc" | "acq_rel" => fence = Fence::Everything,
                "acquire" => fence = Fence::Acquire,
                "release" if fence != Fence::MbarrierInit => fence = Fence::Release,
                "release" => {}
                "mbarrier_init" => fence = Fence::MbarrierInit,
                "cta" => scope = Scope::Block,
                "cluster" => scope = Scope::Cluster,
                "gpu" | "gl" => scope = Scope::Gpu,
                "sys" => scope = Scope::System,
                part => return Err(self.unsupported(&format!("the fence .{part}"))),
            }
        }
        self.push(Operation::Fence(fence, scope), &[], &[]);
        Ok(())
    }

    fn barrier(&mut self, statement: &'t Statement<'t>, parts: &[&str]) -> Result<()> {
        let parts: Vec<&str> = parts.iter().copied().filter(|part| *part != "cta").collect();
        let operation = match parts[..] {
            ["bar", "warp", "sync"] => {
                let mask = self.read(self.operand(statement, 0)?, Bank::Word)?;
                self.push(Operation::WarpSync, &[], &[mask]);
                return Ok(());
            }
            ["barrier", "cluster", "arrive", ref rest @ ..] => {
                Operation::ClusterArrive { release: !rest.contains(&"relaxed") }
            }
            ["barrier", "cluster", "wait", ..] => Operation::ClusterWait { acquire: true },
            ["bar" | "barrier", kind @ ("sync" | "arrive"), ..] => {
                let counted = statement.operands.len() > 1;
                let mut reads = Vec::new();
                for operand in &statement.operands {
                    reads.push(self.read(operand, Bank::Word)?);
                }
                self.push(Operation::Barrier { counted, wait: kind == "sync" }, &[], &reads);
                return Ok(());
            }
            _ => return Err(self.unknown(statement.opcode)),
        };
        self.push(operation, &[], &[]);
        Ok(())
    }

    fn mma(&mut self, statement: &'t Statement<'t>, opcode: &str) -> Result<()> {
        let (elements, depth, a, b) = match opcode {
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32" => (Matrix::Bf16, 16, 4, 2),
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32" => (Matrix::F16, 16, 4, 2),
            "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32" => (Matrix::Bf16, 8, 2, 1),
            "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32" => (Matrix::F16, 8, 2, 1),
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32" => (Matrix::Tf32, 8, 4, 2),
            "mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32" => (Matrix::Tf32, 4, 2, 1),
            _ => return Err(self.unknown(opcode)),
        };
        let mut reads = self.reads(self.operand(statement, 1)?, Bank::Word, a)?;
        reads.extend(self.reads(self.operand(statement, 2)?, Bank::Word, b)?);
        reads.extend(self.reads(self.operand(statement, 3)?, Bank::Word, 4)?);
        let writes = self.writes(self.operand(statement, 0)?, Bank::Word, 4)?;
        self.push(Operation::Mma { elements, depth }, &writes, &reads);
        Ok(())
    }

    /// An address in shared memory, as a word.
    fn shared_address(&mut self, statement: &'t Statement<'t>, index: usize) -> Result<(Register, i64)> {
        let operand = self.operand(statement, index)?;
        let (register, offset) = self.address(operand)?;
        self.as_word(register).map(|register| (register, offset))
    }

    fn as_word(&mut self, register: Register) -> Result<Register> {
        if register.bank == Bank::Word {
            return Ok(register);
        }
        let narrow = arithmetic::find("cvt.u32.u64").ok_or_else(|| self.unsupported("this address"))?;
        let word = self.fresh(Bank::Word);
        self.push(Operation::Compute(narrow), &[word], &[register]);
        Ok(word)
    }

    fn mbarrier(&mut self, statement: &'t Statement<'t>, parts: &[&str]) -> Result<()> {
        let scope = |default: Scope| {
            let named = parts.iter().find_map(|part| match *part {
                "cta" => Some(Scope::Block),
                "cluster" => Some(Scope::Cluster),
                _ => None,
            });
            (!parts.contains(&"relaxed")).then_some(named.unwrap_or(default))
        };
        match parts.get(1).copied() {
            Some("init") => {
                let (address, offset) = self.shared_address(statement, 0)?;
                let count = self.read(self.operand(statement, 1)?, Bank::Word)?;
                self.push(Operation::MbarrierInit { offset }, &[], &[address, count]);
            }
            Some("inval") => {
                let (address, offset) = self.shared_address(statement, 0)?;
                self.push(Operation::MbarrierInvalidate { offset }, &[], &[address]);
            }
            Some(kind @ ("arrive" | "expect_tx")) => {
                let expect = kind == "expect_tx" || parts.get(2) == Some(&"expect_tx");
                let arrives = kind == "arrive";
                if parts.contains(&"noComplete") {
                    return Err(self.unknown(statement.opcode));
                }
                let at = usize::from(!matches!(self.operand(statement, 0)?, Operand::Address(..)));
                if at == 1 && !matches!(statement.operands[0], Operand::Nothing) {
                    return Err(self.unsupported("the state of an mbarrier as a value; wait by parity"));
                }
                let (address, offset) = self.shared_address(statement, at)?;
                let mut reads = vec![address];
                let many = statement.operands.len() > at + 1;
                if many {
                    reads.push(self.read(self.operand(statement, at + 1)?, Bank::Word)?);
                }
                let remote = parts.contains(&"shared::cluster");
                let release = scope(Scope::Block);
                let operation =
                    Operation::MbarrierArrive { expect, arrives, many: many && !expect, remote, release, offset };
                self.push(operation, &[], &reads);
            }
            Some("try_wait" | "test_wait") if parts.get(2) == Some(&"parity") => {
                let result = self.write(self.operand(statement, 0)?, Bank::Bit)?;
                let (address, offset) = self.shared_address(statement, 1)?;
                let parity = self.read(self.operand(statement, 2)?, Bank::Word)?;
                let acquire = scope(Scope::Block);
                self.push(Operation::MbarrierTest { acquire, offset }, &[result], &[address, parity]);
            }
            _ => return Err(self.unknown(statement.opcode)),
        }
        Ok(())
    }

    fn store_async(&mut self, statement: &'t Statement<'t>, parts: &[&str]) -> Result<()> {
        if !parts.contains(&"shared::cluster") || !parts.contains(&"mbarrier::complete_tx::bytes") {
            return Err(self.unknown(statement.opcode));
        }
        let count = match parts.iter().find(|part| matches!(**part, "v2" | "v4")) {
            Some(&"v2") => 2,
            Some(_) => 4,
            None => 1,
        };
        let bytes = parts.last().and_then(|part| type_bytes(part)).filter(|bytes| *bytes >= 4);
        let bytes = bytes.ok_or_else(|| self.unknown(statement.opcode))?;
        let bank = if bytes == 8 { Bank::Double } else { Bank::Word };
        let (address, offset) = self.shared_address(statement, 0)?;
        let values = self.reads(self.operand(statement, 1)?, bank, count)?;
        let (barrier, barrier_offset) = self.shared_address(statement, 2)?;
        let mut reads = vec![address, barrier];
        reads.extend(values);
        let operation = Operation::StoreAsync { bytes: bytes as u8, count: count as u8, offset, barrier_offset };
        self.push(operation, &[], &reads);
        Ok(())
    }

    fn copy_async(&mut self, statement: &'t Statement<'t>, parts: &[&str]) -> Result<()> {
        match parts[1..] {
            ["async", "commit_group"] => self.push(Operation::CopyCommit, &[], &[]),
            ["async", "wait_all"] => {
                self.push(Operation::CopyCommit, &[], &[]);
                self.push(Operation::CopyWait(0), &[], &[]);
            }
            ["async", "wait_group"] => match self.operand(statement, 0)? {
                Operand::Number(groups) => self.push(Operation::CopyWait(*groups as u32), &[], &[]),
                _ => return Err(self.unsupported("a number of groups is expected")),
            },
            ["async", "ca" | "cg", "shared" | "shared::cta", "global", ref hints @ ..]
                if hints.iter().all(|hint| hint.starts_with("L2::") && *hint != "L2::cache_hint") =>
            {
                let bytes = match self.operand(statement, 2)? {
                    Operand::Number(bytes @ (4 | 8 | 16)) => *bytes as u8,
                    _ => return Err(self.unsupported("4, 8 or 16 bytes are expected")),
                };
                let (to, to_offset) = self.shared_address(statement, 0)?;
                let (from, from_offset) = self.address(self.operand(statement, 1)?)?;
                if from.bank != Bank::Double {
                    return Err(self.unsupported("an address of 64 bits is expected"));
                }
                let mut reads = vec![to, from];
                let partial = statement.operands.len() > 3;
                if partial {
                    reads.push(self.read(self.operand(statement, 3)?, Bank::Word)?);
                }
                self.push(Operation::CopyAsync { bytes, partial, to_offset, from_offset }, &[], &reads);
            }
            _ => return Err(self.unknown(statement.opcode)),
        }
        Ok(())
    }
}

/// The operation of an atomic access or a reduction, by its name and its type.
fn combine(name: Option<&str>, kind: Option<&str>) -> Option<Combine> {
    let signed = kind.is_some_and(|kind| kind.starts_with('s'));
    Some(match name? {
        "add" => Combine::Add,
        "and" => Combine::And,
        "or" => Combine::Or,
        "xor" => Combine::Xor,
        "min" if signed => Combine::MinSigned,
        "max" if signed => Combine::MaxSigned,
        "min" => Combine::MinUnsigned,
        "max" => Combine::MaxUnsigned,
        "exch" => Combine::Exchange,
        "cas" => Combine::CompareAndSwap,
        _ => return None,
    })
}
