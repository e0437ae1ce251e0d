//! temp
use fused_rnn::backend::reference::ReferenceBackend;
use fused_rnn::cell::*;
use fused_rnn::gradcheck::*;
use fused_rnn::rnn::*;
#[test]
fn smoke() {
    for cell in CellKind::ALL {
        let mut d = RnnDescriptor::new(cell, 4, 5);
        d.num_layers = 2;
        d.direction = Direction::Bidirectional;
        d.dropout = 0.3;
        d.gate_clip = Some(1.0);
        if cell == CellKind::Lstm {
            d.proj_size = Some(3);
            d.peepholes = true;
            d.cell_clip = Some(0.5);
        }
        for act in Activation::ALL {
            d.activations = Activations { gate: act, state: act, output: act };
            let mut c = GradCheck::new(d.clone(), 5, 3);
            c.optional.lengths = SequenceLengths::Random;
            c.optional.resets = true;
            let t = std::time::Instant::now();
            let r = c.run(&ReferenceBackend::<f64>::new()).unwrap();
            println!("{cell} {act} {:?} redraws {} {:?}", r.worst().unwrap(), r.redraws, t.elapsed());
        }
    }
}
