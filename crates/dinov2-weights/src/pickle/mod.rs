//! A pickle machine that executes no code: it rebuilds dicts of tensors and treats everything else as inert.
//!
//! Understands the opcodes that `torch.save` emits with protocols 2 to 5. A global is only ever a name: applying one
//! yields a tensor for the three functions by which PyTorch rebuilds tensors, a dict for `OrderedDict`, and an inert
//! object for anything else. No code, module or file is loaded. Values are in an arena, so that cycles and deep nesting
//! cannot exhaust the stack, and memory is proportional to the pickle's length.

mod globals;
mod machine;

use std::collections::HashMap;
use std::rc::Rc;

use machine::{Machine, Value};

/// Longest pickle. That of ViT-g has 80 kB; weights are stored outside of it.
pub(crate) const MAX_PICKLE_BYTES: usize = 8 << 20;
/// Version of the sequence of pickles.
const SEQUENCE_VERSION: i64 = 1001;
/// Deepest nesting of dicts that is searched for tensors.
const MAX_NESTING: usize = 12;
/// Longest dotted name of a tensor.
const MAX_NAME_BYTES: usize = 512;
/// Most dict entries that are visited in search of tensors.
const MAX_ENTRIES: usize = 1 << 20;

/// A tensor as described by the pickle, not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorRecipe {
    /// Class of the storage, for example `FloatStorage`, or the number type where the storage has none.
    pub(crate) storage: Rc<str>,
    /// Member of the archive that holds it.
    pub(crate) key: Rc<str>,
    /// First element within the storage.
    pub(crate) offset: i64,
    pub(crate) shape: Vec<i64>,
    /// In elements.
    pub(crate) strides: Vec<i64>,
}

/// The content of a pickle, by dotted name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Described {
    /// Every tensor reachable from the root through dicts with text keys.
    pub(crate) tensors: Vec<(String, Rc<TensorRecipe>)>,
    /// Every other object there that has the name of a parameter, with its class.
    pub(crate) others: Vec<(String, Rc<str>)>,
}

/// Reads the pickle of an archive.
pub(crate) fn tensors(pickle: &[u8]) -> Result<Described, String> {
    if pickle.len() > MAX_PICKLE_BYTES {
        return Err(format!("pickle: expected at most {MAX_PICKLE_BYTES} bytes, got {}", pickle.len()));
    }
    let mut machine = Machine::new(pickle);
    let root = machine.run()?;
    flatten(&machine, root)
}

/// The pickles before the storages of a file of PyTorch before 1.6.
pub(crate) struct Sequence {
    pub(crate) described: Described,
    /// Class of each storage that the object names.
    pub(crate) classes: HashMap<Rc<str>, Rc<str>>,
    /// Keys of the storages, in the order in which they follow.
    pub(crate) keys: Vec<Rc<str>>,
    /// Where the storages begin.
    pub(crate) end: usize,
}

/// Reads the five pickles at the beginning of `file`.
pub(crate) fn sequence(file: &[u8]) -> Result<Sequence, String> {
    let mut end = 0;
    let mut next = || {
        let window = &file[end..file.len().min(end + MAX_PICKLE_BYTES)];
        let mut machine = Machine::new(window);
        let root = machine.run()?;
        end += machine.consumed();
        Ok::<_, String>((machine, root))
    };
    // The magic number, which the caller has seen.
    next()?;
    match next()?.1 {
        Value::Int(SEQUENCE_VERSION) => {}
        _ => {
            return Err(format!(
                "checkpoint: expected version {SEQUENCE_VERSION} of torch.save, got another"
            ));
        }
    }
    let (machine, facts) = next()?;
    if !is_little_endian(&machine, &facts) {
        return Err("byte order: expected little, got big or none".into());
    }
    let (mut machine, root) = next()?;
    let described = flatten(&machine, root)?;
    let classes = std::mem::take(&mut machine.classes);
    let (machine, keys) = next()?;
    let keys = match keys {
        Value::List(keys) => machine.entries(keys).iter(),
        _ => return Err("checkpoint: expected a list of storages, got something else".into()),
    };
    let text = |key: &Value| match key {
        Value::Text(key) => Ok(key.clone()),
        _ => Err("checkpoint: expected names of storages, got something else".to_string()),
    };
    let keys = keys.map(text).collect::<Result<_, _>>()?;
    Ok(Sequence { described, classes, keys, end })
}

/// Whether the facts about the writer say that numbers are little-endian.
fn is_little_endian(machine: &Machine<'_>, facts: &Value) -> bool {
    let Value::Dict(facts) = facts else { return false };
    let mut pairs = machine.entries(*facts).as_chunks().0.iter();
    pairs.any(|[key, value]| {
        matches!((key, value), (Value::Text(key), Value::Bool(true)) if &**key == "little_endian")
    })
}

fn flatten(machine: &Machine<'_>, root: Value) -> Result<Described, String> {
    let Value::Dict(root) = root else {
        let got = match root {
            Value::Object(class) | Value::Global(class) => format!("a {class}"),
            Value::Tensor(_) => "a single tensor".into(),
            _ => "something else".into(),
        };
        return Err(format!("checkpoint: expected a dict of tensors (save model.state_dict()), got {got}"));
    };
    let mut found = Described::default();
    let mut visited = 0usize;
    let mut open = vec![(String::new(), root, 0usize)];
    while let Some((prefix, dict, depth)) = open.pop() {
        visited += machine.entries(dict).len();
        if visited > 2 * MAX_ENTRIES {
            return Err(format!("checkpoint: expected at most {MAX_ENTRIES} entries, got more"));
        }
        for pair in machine.entries(dict).as_chunks().0 {
            let [Value::Text(key), value] = pair else { continue };
            let named = matches!(value, Value::Tensor(_) | Value::Object(_) | Value::Dict(_));
            if !named || depth >= MAX_NESTING || prefix.len() + key.len() >= MAX_NAME_BYTES {
                continue;
            }
            let name = if prefix.is_empty() { key.to_string() } else { format!("{prefix}.{key}") };
            match value {
                Value::Tensor(tensor) => found.tensors.push((name, tensor.clone())),
                Value::Object(class) if is_parameter(&name) => found.others.push((name, class.clone())),
                Value::Dict(dict) => open.push((name, *dict, depth + 1)),
                _ => {}
            }
        }
    }
    Ok(found)
}

/// Whether a tensor is expected under this name.
fn is_parameter(name: &str) -> bool {
    name.ends_with("weight") || name.ends_with("bias")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pickle of protocol 2 around these opcodes.
    fn pickle(body: &[&[u8]]) -> Vec<u8> {
        [&[0x80, 2][..], &body.concat(), b"."].concat()
    }

    #[test]
    fn nesting_as_deep_as_the_pickle_is_long_does_not_exhaust_the_stack() {
        let nested = pickle(&[b")", &[0x85; 1 << 20]]);
        assert!(tensors(&nested).unwrap_err().contains("got something else"));
    }

    #[test]
    fn a_dict_within_itself_ends() {
        // d = {}; d["a"] = d
        let cyclic = pickle(&[b"}q\x00", b"X\x01\0\0\0a", b"h\x00", b"s"]);
        assert_eq!(tensors(&cyclic).unwrap(), Described::default());
    }

    #[test]
    fn dicts_that_share_their_entries_do_not_multiply_without_bound() {
        // Each of 12 levels holds the one below 64 times over.
        let mut body = vec![b"}q\x00".to_vec()];
        for level in 1..=12u8 {
            body.push(vec![b'}', b'q', level, b'(']);
            for name in 0..64u8 {
                body.push(vec![b'X', 1, 0, 0, 0, name + 32, b'h', level - 1]);
            }
            body.push(b"u".to_vec());
        }
        let body: Vec<&[u8]> = body.iter().map(Vec::as_slice).collect();
        assert!(tensors(&pickle(&body)).unwrap_err().contains("entries, got more"));
    }

    #[test]
    fn one_list_is_not_copied_into_many_dicts() {
        let pairs = b"K\x01K\x02\x86a".repeat(1000);
        let many = b"h\x01h\x00\x85R0".repeat(1000);
        let body = pickle(&[b"ccollections\nOrderedDict\nq\x010", b"]q\x00", &pairs, &many, b"}"]);
        assert!(tensors(&body).unwrap_err().contains("one list copied into many"));
    }

    #[test]
    fn what_torch_never_writes_is_refused() {
        for (body, told) in [
            (&b"I1\n"[..], "expected an opcode of torch.save, got 0x49"),
            (b"h\x05", "number 5, which is none"),
            (b"R", "expected a value on the stack, got none"),
            (b"u", "expected a mark on the stack, got none"),
            (b"}(K\x01u", "expected a dict and pairs"),
            (b"K\x01Q", "expected the id of a storage"),
            (b"X\xff\xff\xff\xffa", "expected 4294967295 more bytes, got the end"),
            (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff", "more bytes, got the end"),
            (b"cno newline", "expected a line, got the end"),
        ] {
            let error = tensors(&pickle(&[body])).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        assert!(tensors(&vec![b'N'; MAX_PICKLE_BYTES + 1]).unwrap_err().contains("expected at most"));
    }
}
