//! The stack machine: opcodes, memo and arena. Opcodes: `Lib/pickletools.py` of CPython. [`super::globals`] gives the few
//! names that have a meaning their effect.

use std::collections::HashMap;
use std::rc::Rc;

use super::TensorRecipe;

/// Longest name of a global.
const MAX_GLOBAL_BYTES: usize = 256;

/// A value on the stack. Containers are indices into the machine's arena; `Inert` stands for values that are not needed.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Inert,
    Bool(bool),
    Int(i64),
    Text(Rc<str>),
    Global(Rc<str>),
    Object(Rc<str>),
    Tuple(usize),
    List(usize),
    Dict(usize),
    /// `start`: where a view begins in the storage of this key, in elements.
    Storage {
        class: Rc<str>,
        key: Rc<str>,
        start: i64,
    },
    Tensor(Rc<TensorRecipe>),
}

/// The state while a pickle is read.
#[derive(Default)]
pub(super) struct Machine<'a> {
    pub(super) input: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    /// Elements of tuples and lists; keys and values of dicts, alternating.
    pub(super) arena: Vec<Vec<Value>>,
    /// Values copied from lists into dicts; a small pickle could otherwise copy a long list many times.
    pub(super) copied: usize,
    /// Class of each storage that was named, by its key.
    pub(super) classes: HashMap<Rc<str>, Rc<str>>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self { input, ..Self::default() }
    }

    /// Keys and values of a dict, alternating.
    pub(super) fn entries(&self, dict: usize) -> &[Value] {
        &self.arena[dict]
    }

    /// Bytes of the pickle, once it has run.
    pub(super) fn consumed(&self) -> usize {
        self.at
    }

    /// Executes up to the end of the pickle; returns what it describes.
    pub(super) fn run(&mut self) -> Result<Value, String> {
        loop {
            let opcode = self.take(1)?[0];
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            0x80 => self.take(1).map(drop),
            0x95 => self.take(8).map(drop),
            b'N' => self.push(Value::Inert),
            0x88 | 0x89 => self.push(Value::Bool(opcode == 0x88)),
            b'J' | b'K' | b'M' | 0x8a | 0x8b | b'G' => self.number(opcode),
            b'X' | 0x8c | 0x8d | b'T' | b'U' => self.text(opcode),
            b'B' | b'C' | 0x8e | 0x96 => self.blob(opcode),
            b'(' | b'0' | b'1' | b'2' => self.stack_operation(opcode),
            b')' | b't' | 0x85 | 0x86 | 0x87 => self.tuple(opcode),
            b']' | b'l' | b'a' | b'e' => self.list(opcode),
            b'}' | b'd' | b's' | b'u' => self.dict(opcode),
            0x8f..=0x91 => self.set(opcode),
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memo_operation(opcode),
            b'c' | 0x93 => self.global(opcode),
            b'Q' => self.persistent(),
            b'R' | 0x81 | 0x92 | b'b' => self.apply(opcode),
            other => Err(self.wrong("an opcode of torch.save", &format!("{other:#04x}"))),
        }
    }

    pub(super) fn wrong(&self, expected: &str, got: &str) -> String {
        format!("pickle at byte {}: expected {expected}, got {got}", self.at)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.input.len());
        let Some(end) = end else { return Err(self.wrong(&format!("{count} more bytes"), "the end")) };
        let taken = &self.input[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// A little-endian unsigned number of `size` bytes.
    fn length(&mut self, size: usize) -> Result<usize, String> {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(self.take(size)?);
        usize::try_from(u64::from_le_bytes(bytes)).map_err(|_| self.wrong("a length", "too large a number"))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.input[self.at..];
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
            return Err(self.wrong("a line", "the end"));
        };
        let line = self.take(end + 1)?;
        std::str::from_utf8(&line[..end]).map_err(|_| self.wrong("text", "bytes that are no UTF-8"))
    }

    pub(super) fn push(&mut self, value: Value) -> Result<(), String> {
        self.stack.push(value);
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Result<Value, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.wrong("a value on the stack", "none"));
        }
        self.stack.pop().ok_or_else(|| self.wrong("a value on the stack", "none"))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, String> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => Err(self.wrong("a mark on the stack", "none")),
        }
    }

    pub(super) fn allocate(&mut self, values: Vec<Value>) -> usize {
        self.arena.push(values);
        self.arena.len() - 1
    }

    fn number(&mut self, opcode: u8) -> Result<(), String> {
        let value = match opcode {
            b'J' => i32::from_le_bytes(self.take(4)?.try_into().unwrap_or_default()).into(),
            b'K' => self.take(1)?[0].into(),
            b'M' => u16::from_le_bytes(self.take(2)?.try_into().unwrap_or_default()).into(),
            b'G' => {
                self.take(8)?;
                return self.push(Value::Inert);
            }
            _ => {
                let size = self.length(if opcode == 0x8a { 1 } else { 4 })?;
                let digits = self.take(size)?;
                if size > 8 {
                    return self.push(Value::Inert);
                }
                let negative = digits.last().is_some_and(|byte| byte & 0x80 != 0);
                let mut bytes = [if negative { 0xff } else { 0 }; 8];
                bytes[..size].copy_from_slice(digits);
                i64::from_le_bytes(bytes)
            }
        };
        self.push(Value::Int(value))
    }

    fn text(&mut self, opcode: u8) -> Result<(), String> {
        let size = match opcode {
            0x8c | b'U' => self.length(1)?,
            0x8d => self.length(8)?,
            _ => self.length(4)?,
        };
        let text = String::from_utf8_lossy(self.take(size)?);
        self.push(Value::Text(text.into()))
    }

    fn blob(&mut self, opcode: u8) -> Result<(), String> {
        let size = match opcode {
            b'C' => self.length(1)?,
            b'B' => self.length(4)?,
            _ => self.length(8)?,
        };
        self.take(size)?;
        self.push(Value::Inert)
    }

    fn stack_operation(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            b'(' => self.marks.push(self.stack.len()),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let top = self.pop()?;
                self.stack.extend([top.clone(), top]);
            }
            _ => drop(self.pop()?),
        }
        Ok(())
    }

    fn tuple(&mut self, opcode: u8) -> Result<(), String> {
        let values = match opcode {
            b')' => Vec::new(),
            b't' => self.pop_to_mark()?,
            _ => {
                let mut values = Vec::new();
                for _ in 0..=opcode - 0x85 {
                    values.push(self.pop()?);
                }
                values.reverse();
                values
            }
        };
        let tuple = self.allocate(values);
        self.push(Value::Tuple(tuple))
    }

    fn list(&mut self, opcode: u8) -> Result<(), String> {
        if opcode == b']' || opcode == b'l' {
            let values = if opcode == b'l' { self.pop_to_mark()? } else { Vec::new() };
            let list = self.allocate(values);
            return self.push(Value::List(list));
        }
        let values = if opcode == b'a' { vec![self.pop()?] } else { self.pop_to_mark()? };
        match self.stack.last() {
            Some(&Value::List(list)) => self.arena[list].extend(values),
            Some(Value::Inert | Value::Object(_)) => {}
            _ => return Err(self.wrong("a list to append to", "something else")),
        }
        Ok(())
    }

    fn dict(&mut self, opcode: u8) -> Result<(), String> {
        if opcode == b'}' || opcode == b'd' {
            let values = if opcode == b'd' { self.pop_to_mark()? } else { Vec::new() };
            let dict = self.allocate(values);
            return self.push(Value::Dict(dict));
        }
        let values = if opcode == b's' {
            let value = self.pop()?;
            vec![self.pop()?, value]
        } else {
            self.pop_to_mark()?
        };
        match self.stack.last() {
            Some(&Value::Dict(dict)) if values.len().is_multiple_of(2) => self.arena[dict].extend(values),
            Some(Value::Inert | Value::Object(_)) => {}
            _ => return Err(self.wrong("a dict and pairs to put into it", "something else")),
        }
        Ok(())
    }

    /// Sets hold no tensors.
    fn set(&mut self, opcode: u8) -> Result<(), String> {
        if opcode != 0x8f {
            self.pop_to_mark()?;
        }
        if opcode == 0x90 { Ok(()) } else { self.push(Value::Inert) }
    }

    fn memo_operation(&mut self, opcode: u8) -> Result<(), String> {
        let index = match opcode {
            b'q' | b'h' => self.length(1)?,
            b'r' | b'j' => self.length(4)?,
            _ => self.memo.len(),
        };
        let index = index as u32;
        if matches!(opcode, b'h' | b'j') {
            return match self.memo.get(&index).cloned() {
                Some(value) => self.push(value),
                None => Err(self.wrong("a memoised value", &format!("number {index}, which is none"))),
            };
        }
        let value = self.pop()?;
        self.memo.insert(index, value.clone());
        self.push(value)
    }

    fn global(&mut self, opcode: u8) -> Result<(), String> {
        let (module, name): (Rc<str>, Rc<str>) = if opcode == b'c' {
            (self.line()?.into(), self.line()?.into())
        } else {
            match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => (module, name),
                _ => return Err(self.wrong("the name of a global", "something else")),
            }
        };
        if module.len() + name.len() > MAX_GLOBAL_BYTES {
            return Err(self.wrong("the name of a global", &format!("more than {MAX_GLOBAL_BYTES} bytes")));
        }
        self.push(Value::Global(format!("{module}.{name}").into()))
    }
}
