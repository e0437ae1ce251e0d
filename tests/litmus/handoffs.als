// The hand-offs of the persistent kernels as litmus tests under NVIDIA's Alloy model of the PTX memory model (ptx.als). A command has an
// instance where the memory model allows what its name says, and none where it forbids it. README.md says how to run it, and what it gives.
//
// Two blocks of one thread each. The root of the scopes is `gpu` in tests of the grid, and `cluster` in tests of the cluster.
module handoffs
open ptx

fun thread[e: Event] : Thread { e.*~po.~start }
fun block[t: Thread] : Scope { t.~subscope }
fun weak_scope[e: Event] : Scope { thread[e] }

pred two_blocks[t0, t1: Thread] {
  t0 != t1
  Scope = t0 + t1 + block[t0] + block[t1] + System
  #Scope = 5
}

// Of one thread, in this order.
pred order2[t: Thread, a, b: Event] { t.start = a and a.po = b and no b.po }
pred order3[t: Thread, a, b, c: Event] { t.start = a and a.po = b and b.po = c and no c.po }
pred order4[t: Thread, a, b, c, d: Event] { t.start = a and a.po = b and b.po = c and c.po = d and no d.po }

// Accesses of two threads to one word, one of them a write, which are neither strong towards each other nor ordered.
pred race {
  some w: Write, e: MemoryEvent - w |
    w.address = e.address and thread[w] != thread[e] and w->e not in strong_r and w->e not in cause + ~cause
}

// ---- data behind a flag: block 0 writes data and sets a flag, block 1 sees the flag and reads the data ----------------------------

pred message[data: Write, flag: Write, poll: Read, load: Read] {
  some disj t0, t1: Thread {
    two_blocks[t0, t1]
    order2[t0, data, flag]
    order2[t1, poll, load]
  }
  Event = data + flag + poll + load
  data.address = load.address and flag.address = poll.address and data.address != flag.address
  data.scope = weak_scope[data] and load.scope = weak_scope[load]
  data not in Release and load not in Acquire
  poll in flag.rf
  ptx_mm
}
// The load does not see the data, though the poll sees the flag.
pred stale[data: Write, load: Read] { load not in data.rf }

run flag_release_acquire_gpu_stale {
  some data: Write, flag: Release, poll: Acquire, load: Read |
    message[data, flag, poll, load] and flag.scope = System and poll.scope = System and stale[data, load]
} for 5
run flag_release_acquire_gpu_race {
  some data: Write, flag: Release, poll: Acquire, load: Read |
    message[data, flag, poll, load] and flag.scope = System and poll.scope = System and race
} for 5
run flag_relaxed_store_stale {
  some data: Write, flag: Write - Release, poll: Acquire, load: Read |
    message[data, flag, poll, load] and flag.scope = System and poll.scope = System and stale[data, load]
} for 5
run flag_relaxed_poll_stale {
  some data: Write, flag: Release, poll: Read - Acquire, load: Read |
    message[data, flag, poll, load] and flag.scope = System and poll.scope = System and stale[data, load]
} for 5
run flag_release_block_scope_stale {
  some data: Write, flag: Release, poll: Acquire, load: Read |
    message[data, flag, poll, load] and flag.scope = block[thread[flag]] and poll.scope = System and stale[data, load]
} for 5

// ---- the grid: a polled word is its own message ------------------------------------------------------------------------------------

// Block 0 stores two words, block 1 polls both.
pred polled[first, second: Write, poll_first, poll_second: Read] {
  some disj t0, t1: Thread {
    two_blocks[t0, t1]
    order2[t0, first, second]
    order2[t1, poll_first, poll_second]
  }
  Event = first + second + poll_first + poll_second
  no Event & (Release + Acquire)
  first.address = poll_first.address and second.address = poll_second.address and first.address != second.address
  poll_first.scope = System and poll_second.scope = System
  ptx_mm
}

run word_relaxed_gpu_race {
  some disj first, second: Write, disj a, b: Read | polled[first, second, a, b] and first.scope = System and second.scope = System and race
} for 5
run word_relaxed_gpu_seen {
  some disj first, second: Write, disj a, b: Read |
    polled[first, second, a, b] and first.scope = System and second.scope = System and a in first.rf and b in second.rf
} for 5
// The kernels must not and do not conclude from one word that another is there.
run word_relaxed_gpu_second_without_first {
  some disj first, second: Write, disj a, b: Read |
    polled[first, second, a, b] and first.scope = System and second.scope = System and a not in first.rf and b in second.rf
} for 5
run word_relaxed_block_scope_race {
  some disj first, second: Write, disj a, b: Read |
    polled[first, second, a, b] and first.scope = block[thread[first]] and second.scope = System and race
} for 5
run word_weak_race {
  some disj first, second: Write, disj a, b: Read |
    polled[first, second, a, b] and first.scope = weak_scope[first] and second.scope = System and race
} for 5

// ---- the cluster: an mbarrier counts the bytes of st.async ---------------------------------------------------------------------------
// st.async is a weak store followed by a release of the mbarrier at cluster scope (PTX ISA, st.async: complete-tx has .release semantics at
// .cluster scope); a wait that succeeds is an acquire of it. A buffer is used again without a barrier: block 0 stores vector 0 into block
// 1's buffer; block 1 waits, reads it, and sends a vector of its own; block 0 waits for that and stores vector 2 into the same buffer.

pred exchange[w0: Write, sent0: Release, got1: Read, w2: Write, got0: Acquire, load: Read, sent1: Release] {
  some disj t0, t1: Thread {
    two_blocks[t0, t1]
    order4[t0, w0, sent0, got1, w2]
    order3[t1, got0, load, sent1]
  }
  Event = w0 + sent0 + got1 + w2 + got0 + load + sent1
  disj[w0, sent0, got1, w2, got0, load, sent1]
  w0.address = w2.address and w0.address = load.address
  sent0.address = got0.address and sent1.address = got1.address
  w0.address != sent0.address and w0.address != sent1.address and sent0.address != sent1.address
  no (w0 + w2) & Release and load not in Acquire
  w0.scope = weak_scope[w0] and w2.scope = weak_scope[w2] and load.scope = weak_scope[load]
  sent0.scope = System and sent1.scope = System and got0.scope = System
  got0 in sent0.rf and got1 in sent1.rf
  ptx_mm
}

run cluster_vector_missed {
  some w0, w2: Write, sent0, sent1: Release, got0, got1: Acquire, load: Read |
    exchange[w0, sent0, got1, w2, got0, load, sent1] and got1.scope = System and load not in (w0 + w2).rf
} for 7
run cluster_vector_overtaken {
  some w0, w2: Write, sent0, sent1: Release, got0, got1: Acquire, load: Read |
    exchange[w0, sent0, got1, w2, got0, load, sent1] and got1.scope = System and load in w2.rf
} for 7
run cluster_exchange_race {
  some w0, w2: Write, sent0, sent1: Release, got0, got1: Acquire, load: Read |
    exchange[w0, sent0, got1, w2, got0, load, sent1] and got1.scope = System and race
} for 7
run cluster_vector_arrives {
  some w0, w2: Write, sent0, sent1: Release, got0, got1: Acquire, load: Read |
    exchange[w0, sent0, got1, w2, got0, load, sent1] and got1.scope = System and load in w0.rf
} for 7
// Where block 0 looks at the mbarrier without acquiring, its store may overtake the load.
run cluster_relaxed_wait_overtaken {
  some w0, w2: Write, sent0, sent1: Release, got0: Acquire, got1: Read - Acquire, load: Read |
    exchange[w0, sent0, got1, w2, got0, load, sent1] and got1.scope = System and load in w2.rf
} for 7
run cluster_block_scope_wait_race {
  some w0, w2: Write, sent0, sent1: Release, got0, got1: Acquire, load: Read |
    exchange[w0, sent0, got1, w2, got0, load, sent1] and got1.scope = block[thread[got1]] and race
} for 7
