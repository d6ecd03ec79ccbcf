//! Processes as threads over local TCP.

use super::*;

fn read(variables: &[(&'static str, &str)]) -> Result<Option<Launch>, String> {
    let find = |name: &'static str| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned())
    };
    Launch::read(&find).map_err(|error| error.to_string())
}

#[test]
fn launchers_are_understood() {
    assert_eq!(read(&[("RANK", "3")]), Ok(None));
    assert_eq!(read(&[("WORLD_SIZE", "1")]), Ok(None));
    let all = [("WORLD_SIZE", "4"), ("RANK", "3"), ("MASTER_ADDR", "node0"), ("MASTER_PORT", "29500")];
    let launch = read(&all).unwrap().unwrap();
    assert_eq!((launch.rank, launch.local_rank, launch.address.as_str()), (3, 0, "node0:29500"));
    let torchrun = [&all[..], &[("TORCHELASTIC_USE_AGENT_STORE", "True")]].concat();
    assert_eq!(read(&torchrun).unwrap().unwrap().address, "node0:29501");
    assert_eq!(read(&all[..3]).unwrap_err(), "MASTER_PORT: expected a number up to 65535, got nothing");
    assert_eq!(read(&all[..2]).unwrap_err(), "MASTER_ADDR: expected the host of process 0, got nothing");
    let wrong = [("WORLD_SIZE", "4"), ("RANK", "4")];
    assert_eq!(read(&wrong).unwrap_err(), "RANK: expected a number up to 3, got \"4\"");
}

/// A port that was free a moment ago.
fn address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn all_processes_get_the_same_sums_in_the_order_of_ranks() {
    const WORLD: usize = 3;
    // More than one chunk, of numbers whose sum depends on the order.
    let part = |rank: usize| -> Vec<f32> {
        (0..CHUNK + 7)
            .map(|at| ((at * 31 + rank * 17) as f32 * 12.9898).sin() * 10f32.powi(rank as i32))
            .collect()
    };
    let address = address();
    let join = |rank| {
        let launch =
            Launch { rank, world: WORLD, local_rank: rank, local_world: 1, address: address.clone() };
        Group::join(&launch, &Device::Cpu).unwrap()
    };
    let results: Vec<(Vec<f32>, f64, Vec<f32>)> = std::thread::scope(|scope| {
        let processes: Vec<_> = (0..WORLD)
            .rev()
            .map(|rank| {
                scope.spawn(move || {
                    let mut group = join(rank);
                    let (mut numbers, mut loss) = (part(rank), [rank as f64 + 0.1]);
                    group.sum(&mut numbers).unwrap();
                    group.sum(&mut loss).unwrap();
                    let tensor = Tensor::from_vec(part(rank), (CHUNK + 7, 1), &Device::Cpu).unwrap();
                    let sums = group.sum_tensor(&tensor).unwrap();
                    (numbers, loss[0], sums.squeeze(1).unwrap().to_vec1().unwrap())
                })
            })
            .collect();
        processes.into_iter().map(|process| process.join().unwrap()).collect()
    });
    let mut want = part(0);
    for rank in 1..WORLD {
        want.iter_mut().zip(part(rank)).for_each(|(sum, number)| *sum += number);
    }
    for (numbers, loss, sums) in results {
        assert!(numbers == want && sums == want);
        assert_eq!(loss, 0.1 + 1.1 + 2.1);
    }
}

#[test]
fn a_process_that_leaves_is_named() {
    let address = address();
    let launch = |rank| Launch { rank, world: 2, local_rank: 0, local_world: 1, address: address.clone() };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| Group::join(&launch(1), &Device::Cpu).unwrap().sum(&mut [1.0f32; 3]));
        let mut first = Group::join(&launch(0), &Device::Cpu).unwrap();
        let message = first.sum(&mut [1.0f32; 4]).unwrap_err().to_string();
        assert!(message.starts_with("process 1: expected 4 numbers, got 3"), "{message}");
        drop(first);
        let error = other.join().unwrap().unwrap_err();
        assert!(std::error::Error::source(&error).is_some());
        assert_eq!(error.to_string(), "process 0 is gone");
    });
}

#[test]
fn strangers_are_not_let_in() {
    let address = address();
    std::thread::scope(|scope| {
        let launch =
            |rank| Launch { rank, world: 2, local_rank: 0, local_world: 1, address: address.clone() };
        let first = scope.spawn(move || Group::join(&launch(0), &Device::Cpu).map(|group| group.links.len()));
        let mut stranger = loop {
            match TcpStream::connect(&address) {
                Ok(link) => break link,
                Err(_) => std::thread::sleep(RETRY),
            }
        };
        stranger.write_all(b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n").unwrap();
        Group::join(&launch(1), &Device::Cpu).unwrap();
        assert_eq!(first.join().unwrap().unwrap(), 1);
    });
}
