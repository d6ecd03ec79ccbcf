//! A pickle machine that runs nothing: it rebuilds dicts of tensors and treats everything else as inert.
//!
//! Understands the opcodes that `torch.save` emits with protocols 2 to 5. A global is only ever a name: applying one
//! yields a tensor for the three functions by which PyTorch rebuilds tensors, a dict for `OrderedDict`, and an inert
//! object for anything else. No code, module or file is touched. Values live in an arena, so that neither cycles nor
//! deep nesting can exhaust the stack, and memory is proportional to the pickle's length.

mod machine;

use std::rc::Rc;

use machine::{Machine, Value};

/// Longest pickle; that of ViT-g is 80 kB, the weights lie outside of it.
pub(crate) const MAX_PICKLE_BYTES: usize = 8 << 20;
/// Deepest nesting of dicts that is searched for tensors.
const MAX_NESTING: usize = 12;
/// Longest dotted name of a tensor.
const MAX_NAME_BYTES: usize = 512;
/// Most dict entries that are visited in search of tensors.
const MAX_ENTRIES: usize = 1 << 20;

/// A tensor as the pickle describes it; nothing is checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorRecipe {
    /// Class of the storage, for example `FloatStorage`.
    pub(crate) storage: Rc<str>,
    /// Member of the archive that holds it.
    pub(crate) key: Rc<str>,
    /// First element within the storage.
    pub(crate) offset: i64,
    pub(crate) shape: Vec<i64>,
    /// In elements.
    pub(crate) strides: Vec<i64>,
}

/// Every tensor reachable from the root through dicts with text keys, by dotted name.
pub(crate) fn tensors(pickle: &[u8]) -> Result<Vec<(String, Rc<TensorRecipe>)>, String> {
    if pickle.len() > MAX_PICKLE_BYTES {
        return Err(format!("pickle: expected at most {MAX_PICKLE_BYTES} bytes, got {}", pickle.len()));
    }
    let mut machine = Machine::new(pickle);
    let root = machine.run()?;
    flatten(&machine, root)
}

fn flatten(machine: &Machine<'_>, root: Value) -> Result<Vec<(String, Rc<TensorRecipe>)>, String> {
    let Value::Dict(root) = root else {
        let got = match root {
            Value::Object(class) | Value::Global(class) => format!("a {class}"),
            Value::Tensor(_) => "a single tensor".into(),
            _ => "something else".into(),
        };
        return Err(format!("checkpoint: expected a dict of tensors (save model.state_dict()), got {got}"));
    };
    let mut found = Vec::new();
    let mut visited = 0usize;
    let mut open = vec![(String::new(), root, 0usize)];
    while let Some((prefix, dict, depth)) = open.pop() {
        visited += machine.entries(dict).len();
        if visited > 2 * MAX_ENTRIES {
            return Err(format!("checkpoint: expected at most {MAX_ENTRIES} entries, got more"));
        }
        for pair in machine.entries(dict).as_chunks().0 {
            let [Value::Text(key), value] = pair else { continue };
            let named = matches!(value, Value::Tensor(_) | Value::Dict(_));
            if !named || depth >= MAX_NESTING || prefix.len() + key.len() >= MAX_NAME_BYTES {
                continue;
            }
            let name = if prefix.is_empty() { key.to_string() } else { format!("{prefix}.{key}") };
            match value {
                Value::Tensor(tensor) => found.push((name, tensor.clone())),
                Value::Dict(dict) => open.push((name, *dict, depth + 1)),
                _ => {}
            }
        }
    }
    Ok(found)
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
        assert_eq!(tensors(&cyclic).unwrap(), []);
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
