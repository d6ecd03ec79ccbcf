//! The stack machine: opcodes, memo and arena. Opcodes: `Lib/pickletools.py` of CPython.

use std::collections::HashMap;
use std::rc::Rc;

use super::TensorRecipe;

/// Longest name of a global.
const MAX_GLOBAL_BYTES: usize = 256;
/// Longest key of a storage; PyTorch numbers them.
const MAX_KEY_BYTES: usize = 64;
/// The functions by which PyTorch rebuilds a tensor from a storage of its number type; the first is older than 0.4.
const REBUILD_TENSOR: [&str; 2] = ["torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"];
/// The function for number types without a storage class of their own, such as 8-bit floats.
const REBUILD_TYPED: &str = "torch._utils._rebuild_tensor_v3";
/// The function for quantized tensors.
const REBUILD_QUANTIZED: &str = "torch._utils._rebuild_qtensor";

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
    input: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    /// Elements of tuples and lists; keys and values of dicts, alternating.
    arena: Vec<Vec<Value>>,
    /// Values copied from lists into dicts; a small pickle could otherwise copy a long list many times.
    copied: usize,
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

    fn wrong(&self, expected: &str, got: &str) -> String {
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

    fn push(&mut self, value: Value) -> Result<(), String> {
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, String> {
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

    fn allocate(&mut self, values: Vec<Value>) -> usize {
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

    /// `('storage', class, key, device, elements)`; before 1.6 followed by `(view key, start, elements)` or None, and
    /// whole modules are `('module', class, source file, source)`.
    fn persistent(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let parts = match id {
            Value::Tuple(tuple) => self.arena[tuple].as_slice(),
            _ => &[],
        };
        let named = match parts {
            [Value::Text(kind), Value::Global(class), ..] if &**kind == "module" => {
                Value::Global(class.clone())
            }
            [Value::Text(kind), Value::Global(class), Value::Text(key), rest @ ..]
                if &**kind == "storage" && key.len() <= MAX_KEY_BYTES =>
            {
                let start = match rest {
                    [_, _, Value::Tuple(view), ..] => match self.arena[*view].as_slice() {
                        [_, Value::Int(start), ..] => *start,
                        _ => return Err(self.wrong("where a view begins", "something else")),
                    },
                    _ => 0,
                };
                let class: Rc<str> = class.rsplit('.').next().unwrap_or_default().into();
                Value::Storage { class, key: key.clone(), start }
            }
            _ => return Err(self.wrong("the id of a storage", "something else")),
        };
        if let Value::Storage { class, key, .. } = &named {
            self.classes.insert(key.clone(), class.clone());
        }
        self.push(named)
    }

    fn apply(&mut self, opcode: u8) -> Result<(), String> {
        if opcode == b'b' {
            // The state of an object: attributes, of which none is needed.
            return self.pop().map(drop);
        }
        if opcode == 0x92 {
            self.pop()?;
        }
        let arguments = self.pop()?;
        let callable = self.pop()?;
        let Value::Tuple(arguments) = arguments else {
            return Err(self.wrong("a tuple of arguments", "something else"));
        };
        let built = match callable {
            Value::Global(name) => self.build(&name, arguments)?,
            _ => Value::Inert,
        };
        self.push(built)
    }

    /// Applies a global to a tuple of arguments. Only the names listed here have a meaning.
    fn build(&mut self, name: &Rc<str>, arguments: usize) -> Result<Value, String> {
        match &**name {
            "collections.OrderedDict" | "collections.defaultdict" => {
                let pairs = match self.arena[arguments].first() {
                    Some(&Value::List(list)) => self.pairs(list)?,
                    _ => Vec::new(),
                };
                Ok(Value::Dict(self.allocate(pairs)))
            }
            REBUILD_TYPED => Ok(self.typed_tensor(arguments).unwrap_or(Value::Inert)),
            name if REBUILD_TENSOR.contains(&name) || name == REBUILD_QUANTIZED => {
                Ok(self.tensor(arguments).unwrap_or(Value::Inert))
            }
            // (function, class, its arguments, state): tensors with attributes.
            "torch._tensor._rebuild_from_type_v2" => match self.arena[arguments].as_slice() {
                [Value::Global(inner), _, Value::Tuple(tuple), ..] if REBUILD_TENSOR.contains(&&**inner) => {
                    Ok(self.tensor(*tuple).unwrap_or(Value::Inert))
                }
                _ => Ok(Value::Inert),
            },
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => {
                Ok(self.arena[arguments].first().cloned().unwrap_or(Value::Inert))
            }
            _ => Ok(Value::Object(name.clone())),
        }
    }

    /// The keys and values of a list of pairs, alternating.
    fn pairs(&mut self, list: usize) -> Result<Vec<Value>, String> {
        self.copied += self.arena[list].len();
        if self.copied > self.input.len() {
            return Err(self.wrong("dicts of their own items", "one list copied into many"));
        }
        let mut pairs = Vec::new();
        for pair in &self.arena[list] {
            if let Value::Tuple(pair) | Value::List(pair) = pair
                && let [key, value] = self.arena[*pair].as_slice()
            {
                pairs.extend([key.clone(), value.clone()]);
            }
        }
        Ok(pairs)
    }

    /// `(storage, offset, shape, strides, requires_grad, hooks, …)`.
    fn tensor(&self, arguments: usize) -> Option<Value> {
        let [Value::Storage { class, key, start }, Value::Int(offset), shape, strides, ..] =
            &self.arena[arguments][..]
        else {
            return None;
        };
        Some(Value::Tensor(Rc::new(TensorRecipe {
            storage: class.clone(),
            key: key.clone(),
            offset: start.checked_add(*offset)?,
            shape: self.integers(shape)?,
            strides: self.integers(strides)?,
        })))
    }

    /// `(storage, offset, shape, strides, requires_grad, hooks, dtype, …)`: the number type stands for the storage's class.
    fn typed_tensor(&self, arguments: usize) -> Option<Value> {
        let Value::Tensor(recipe) = self.tensor(arguments)? else { return None };
        let Value::Global(dtype) = self.arena[arguments].get(6)? else { return None };
        Some(Value::Tensor(Rc::new(TensorRecipe { storage: dtype.clone(), ..(*recipe).clone() })))
    }

    fn integers(&self, value: &Value) -> Option<Vec<i64>> {
        let Value::Tuple(tuple) = value else { return None };
        let number = |value: &Value| if let Value::Int(number) = value { Some(*number) } else { None };
        self.arena[*tuple].iter().take(crate::checkpoint::MAX_RANK + 1).map(number).collect()
    }
}
