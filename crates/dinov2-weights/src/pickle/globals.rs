//! Globals and persistent ids: the names in a pickle that describe tensors, storages and dicts. All other globals become
//! inert objects; nothing is imported or called.

use std::rc::Rc;

use super::TensorRecipe;
use super::machine::{Machine, Value};

/// Longest key of a storage; PyTorch numbers them.
const MAX_KEY_BYTES: usize = 64;
/// The functions by which PyTorch rebuilds a tensor from a storage of its number type; the first is older than 0.4.
const REBUILD_TENSOR: [&str; 2] = ["torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"];
/// The function for number types without a storage class of their own, such as 8-bit floats.
const REBUILD_TYPED: &str = "torch._utils._rebuild_tensor_v3";
/// The function for quantized tensors.
const REBUILD_QUANTIZED: &str = "torch._utils._rebuild_qtensor";

impl Machine<'_> {
    /// `('storage', class, key, device, elements)`; before 1.6 followed by `(view key, start, elements)` or None, and
    /// whole modules are `('module', class, source file, source)`.
    pub(super) fn persistent(&mut self) -> Result<(), String> {
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

    pub(super) fn apply(&mut self, opcode: u8) -> Result<(), String> {
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
