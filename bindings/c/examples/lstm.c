// An LSTM from C: forward, backward, a step with packed weights, and what errors look like.
//
//     cargo build --release --manifest-path bindings/Cargo.toml -p fused-rnn-c
//     cc -Wall -Werror bindings/c/examples/lstm.c -Ibindings/c/include -Lbindings/target/release -lfused_rnn_c -Wl,-rpath,bindings/target/release -lm -o lstm && ./lstm

#include <fused_rnn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { T = 5, B = 2, I = 3, H = 4 };

static void check(frnn_status status) {
    if (status != FRNN_STATUS_OK) {
        fprintf(stderr, "status %u: %s\n", (unsigned)status, frnn_last_error());
        exit(1);
    }
}

static void report(frnn_status status) {
    printf("refused with status %u: %s\n", (unsigned)status, frnn_last_error());
}

static float *floats(size_t len) {
    float *memory = calloc(len ? len : 1, sizeof(float));
    if (!memory) exit(1);
    return memory;
}

// Numbers in [-scale, scale] that are the same everywhere.
static float *numbers(size_t len, float scale) {
    float *memory = floats(len);
    for (size_t i = 0; i < len; i++) memory[i] = scale * ((float)(i * 37 % 101) / 50.0f - 1.0f);
    return memory;
}

static double sum(const float *values, size_t len) {
    double total = 0;
    for (size_t i = 0; i < len; i++) total += values[i];
    return total;
}

int main(void) {
    printf("fused-rnn %s\n", frnn_version());

    frnn_descriptor lstm;
    check(frnn_descriptor_default(&lstm, sizeof lstm, FRNN_CELL_LSTM, I, H));
    lstm.direction = FRNN_DIRECTIONS_BIDIRECTIONAL;

    frnn_backend *cpu;
    check(frnn_backend_cpu(2, &cpu));
    frnn_plan *plan;
    check(frnn_plan_new(cpu, &lstm, FRNN_DTYPE_F32, T, B, FRNN_MODE_TRAINING, 0, &plan));

    frnn_sizes sizes = {.size = sizeof sizes};
    check(frnn_plan_sizes(plan, &sizes));
    for (size_t i = 0; i < sizes.weight_tensors; i++) {
        frnn_weight_info info = {.size = sizeof info};
        check(frnn_plan_weight(plan, i, &info));
        printf("%-20s %3zu elements at %3zu\n", info.name, info.len, info.offset);
    }

    float *weights = numbers(sizes.weights, 0.5f), *dweights = floats(sizes.weights);
    float *x = numbers(sizes.x, 1.0f), *dx = floats(sizes.x);
    float *y = floats(sizes.y), *dy = floats(sizes.y);
    float *cn = floats(sizes.c), *workspace = floats(sizes.workspace);
    uint32_t lengths[B] = {T, 3}; // the second sequence is shorter
    for (size_t i = 0; i < sizes.y; i++) dy[i] = 1.0f;

    // Forward: the loss is the sum of y.
    frnn_reserve *reserve;
    check(frnn_reserve_new(plan, (frnn_out){0}, &reserve));
    frnn_forward_arguments forward = {.size = sizeof forward};
    forward.weights = (frnn_weights){.data = weights, .len = sizes.weights};
    forward.x = (frnn_in){x, sizes.x};
    forward.lengths = (frnn_in){lengths, B};
    forward.y = (frnn_out){y, sizes.y};
    forward.cn = (frnn_out){cn, sizes.c};
    forward.workspace = (frnn_out){workspace, sizes.workspace};
    check(frnn_forward_training(plan, &forward, reserve));
    double loss = sum(y, sizes.y);
    printf("loss %.5f, final cell states %.5f\n", loss, sum(cn, sizes.c));

    // Backward.
    frnn_backward_arguments backward = {.size = sizeof backward};
    backward.weights = forward.weights;
    backward.x = forward.x;
    backward.lengths = forward.lengths;
    backward.y = (frnn_in){y, sizes.y};
    backward.dy = (frnn_in){dy, sizes.y};
    backward.dx = (frnn_out){dx, sizes.x};
    backward.dweights = (frnn_weight_gradients){.data = dweights, .len = sizes.weights};
    backward.workspace = forward.workspace;
    check(frnn_backward_data(plan, &backward, reserve));
    check(frnn_backward_weights(plan, &backward, reserve));
    printf("gradients: x %.5f, weights %.5f\n", sum(dx, sizes.x), sum(dweights, sizes.weights));

    // A backward pass uses its reserve up. A second one says so; the way out is forward once more.
    report(frnn_backward_data(plan, &backward, reserve));
    check(frnn_forward_training(plan, &forward, reserve));
    check(frnn_backward_data(plan, &backward, reserve));

    // The gradient of one weight against a difference of losses.
    size_t at = 7;
    double slope = 0;
    for (int side = -1; side <= 1; side += 2) {
        weights[at] += (float)side * 0.01f;
        check(frnn_forward_training(plan, &forward, reserve));
        slope += side * sum(y, sizes.y) / 0.02;
        weights[at] -= (float)side * 0.01f;
    }
    check(frnn_forward_training(plan, &forward, reserve));
    printf("weight %zu: gradient and difference agree: %s\n", at, fabs(slope - dweights[at]) < 1e-3 ? "yes" : "no");

    // Steps of a stream: the weights are packed once.
    lstm.direction = FRNN_DIRECTIONS_FORWARD;
    frnn_plan *step, *packed;
    check(frnn_plan_new(cpu, &lstm, FRNN_DTYPE_F32, 1, 1, FRNN_MODE_INFERENCE, 0, &step));
    check(frnn_plan_sizes(step, &sizes));
    frnn_weights half = {.data = weights, .len = sizes.weights};
    check(frnn_plan_with_weights(step, &half, &packed));
    frnn_plan_free(step);
    check(frnn_plan_sizes(packed, &sizes));
    float h[2][H] = {{0}}, c[2][H] = {{0}};
    frnn_forward_arguments stream = {.size = sizeof stream};
    stream.workspace = (frnn_out){workspace, sizes.workspace};
    for (int t = 0; t < T; t++) {
        float out[H];
        int before = t % 2, after = 1 - before;
        stream.x = (frnn_in){x + t * B * I, I}; // the first sequence
        stream.h0 = (frnn_in){h[before], H};
        stream.c0 = (frnn_in){c[before], H};
        stream.y = (frnn_out){out, H};
        stream.hn = (frnn_out){h[after], H};
        stream.cn = (frnn_out){c[after], H};
        check(frnn_forward(packed, &stream));
    }
    printf("after %d steps: h %.5f, that of the whole sequence %.5f\n", T, sum(h[T % 2], H), sum(y + ((T - 1) * B) * 2 * H, H));

    // Mistakes are statuses, never crashes.
    stream.x.len = I + 1;
    report(frnn_forward(packed, &stream));
    stream.x = (frnn_in){NULL, I};
    report(frnn_forward(packed, &stream));
    lstm.hidden_size = 0;
    report(frnn_plan_new(cpu, &lstm, FRNN_DTYPE_F32, 1, 1, FRNN_MODE_INFERENCE, 0, &step));

    frnn_reserve_free(reserve);
    frnn_plan_free(packed);
    frnn_plan_free(plan);
    frnn_backend_free(cpu);
    free(weights), free(dweights), free(x), free(dx), free(y), free(dy), free(cn), free(workspace);
    return 0;
}
