// engine_aio.cc — a lane that hands a small batch of transfers to the kernel and waits with a limit.
//
// Open, stat, rename, close and io_submit itself are ordinary calls of the lane, watched under the seat
// of the operation they are made for: while one hangs, the thread and all its seats are lost. What was
// submitted and does not come back keeps its seat, its pages and its memory, and nothing else; the lane
// goes on with the rest. io_destroy is called only with nothing in flight: otherwise it would wait.
#include <errno.h>
#include <time.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <utility>

#include "aio.h"
#include "engine.h"
#include "keeper.h"
#include "lane_context.h"

namespace kvlane {
namespace {

// A completion ends a wait, and so does new work while seats are free. The limit is for what neither tells:
// a nudge spent on a lane that hangs before it takes the work up.
constexpr uint64_t wait_max_us = 250'000;
// A lane that was in other calls for longer looks first without waiting, to tell what came meanwhile.
constexpr uint64_t away_us = 1'000;

struct Slot {
    Slot(unsigned own_seat, FileSystem& file_system, WatchWord& word, const Clock& clock, RootCache& roots)
        : seat(own_seat), context(file_system, word, clock, roots) {}
    const unsigned seat;
    LaneContext context;
    std::shared_ptr<Operation> operation;
    std::unique_ptr<BlockWork> work;
    Transfer transfer;
    iocb request = {};
    uint64_t submitted_us = 0;
    bool in_flight = false;
};

class AioEngine {
  public:
    AioEngine(Lane& lane, AioCalls& calls) : lane_(lane), calls_(calls) {
        for (unsigned seat = 0; seat < lane.seats(); seat++) slots_.emplace_back(seat, posix_file_system(), lane.word(seat), lane.clock(), roots_);
    }

    ~AioEngine() {
        if (context_ != 0) calls_.destroy(context_);
    }

    // 0 or an errno.
    int get_context() {
        const int made = calls_.setup(lane_.seats(), context_);
        return made < 0 ? -made : 0;
    }

    void run() {
        for (;;) {
            if (in_flight_ == 0) {
                auto operation = lane_.take(0, Wait::yes);
                if (!operation) break;
                begin(0, std::move(operation));
            }
            top_up();
            if (in_flight_ > 0) collect();
        }
        slots_.front().context.close_roots();
    }

  private:
    void top_up() {
        if (!lane_.work_waits() || lane_.leaving()) return;
        for (unsigned seat = 0; seat < slots_.size(); seat++) {
            if (slots_[seat].in_flight) continue;
            auto operation = lane_.take(seat, Wait::no);
            if (!operation) return;
            begin(seat, std::move(operation));
        }
    }

    void begin(unsigned seat, std::shared_ptr<Operation> operation) {
        Slot& slot = slots_[seat];
        slot.operation = std::move(operation);
        advance(seat, [&] {
            slot.work = lane_.make_work(slot.operation);
            return slot.work->start(slot.context);
        });
    }

    // One step of the operation's own machine, and whatever follows from it until a transfer is in
    // the kernel or the operation is through.
    template <typename Step>
    void advance(unsigned seat, Step&& step) {
        Slot& slot = slots_[seat];
        try {
            std::optional<Transfer> next = step();
            while (next) {
                slot.transfer = *next;
                const int64_t refused = submit(slot);
                if (refused == 0) return;
                next = slot.work->resume(slot.context, refused == -call_refused ? refused : slot.context.transfer(*slot.operation, slot.transfer));
            }
        } catch (...) {  // std::bad_alloc; nothing else throws here
            slot.operation->result.status = Status::io_error;
            slot.operation->result.error = ENOMEM;
        }
        slot.work.reset();
        slot.context.close_leftovers(*slot.operation);
        slot.operation.reset();
        lane_.finish(seat);
    }

    // 0: in the kernel. -call_refused: nobody waits for it any more. Else: it has to be done the ordinary way
    // (a file that has no asynchronous fsync, a kernel short of memory).
    int64_t submit(Slot& slot) {
        if (!slot.context.still_wanted(*slot.operation)) return -call_refused;
        const Transfer& transfer = slot.transfer;
        slot.request = {};
        slot.request.aio_data = slot.seat;
        slot.request.aio_fildes = static_cast<uint32_t>(transfer.fd);
        switch (transfer.what) {
            case Transfer::What::read: slot.request.aio_lio_opcode = IOCB_CMD_PREADV; break;
            case Transfer::What::write: slot.request.aio_lio_opcode = IOCB_CMD_PWRITEV; break;
            case Transfer::What::fsync: slot.request.aio_lio_opcode = IOCB_CMD_FSYNC; break;
        }
        if (transfer.what != Transfer::What::fsync) {
            slot.request.aio_buf = reinterpret_cast<uintptr_t>(slot.transfer.parts);
            slot.request.aio_nbytes = static_cast<uint64_t>(transfer.part_count);
            slot.request.aio_offset = transfer.offset;
        }
        if (!aio_begins()) return -call_refused;  // this process is leaving
        WatchWord& word = slot.context.word();
        slot.submitted_us = lane_.clock().now_us();
        word.enter(transfer.phase(), Syscall::io_submit, slot.submitted_us);
        const int submitted = calls_.submit(context_, slot.request);
        word.leave();
        if (submitted != 1) {
            aio_ended();
            slot.operation->result.kernel_us += lane_.clock().now_us() - slot.submitted_us;
            return submitted < 0 ? submitted : -EAGAIN;
        }
        word.enter(transfer.phase(), Syscall::io_getevents, slot.submitted_us);
        slot.in_flight = true;
        in_flight_++;
        return 0;
    }

    void collect() {
        io_event events[aio_seats];
        const uint64_t back_us = lane_.clock().now_us();
        const uint64_t looked_us = looked_us_;
        const bool was_away = back_us - looked_us > away_us;
        int got = was_away ? calls_.wait(context_, events, aio_seats, 0) : 0;
        const bool came_meanwhile = was_away && got > 0;
        if (got == 0) {
            const bool may_wait = in_flight_ == slots_.size() || lane_.nap();
            got = calls_.wait(context_, events, aio_seats, may_wait ? wait_max_us : 0);
            lane_.awake();
        }
        looked_us_ = lane_.clock().now_us();
        if (got < 0) {  // not to be expected of a context of our own; what is in flight must still be waited for
            const timespec pause{0, 20'000'000};
            nanosleep(&pause, nullptr);
        }
        if (got <= 0) return;
        const uint64_t now_us = looked_us_;
        // All of them are back before any goes on: the next call of one may hang, and the others' time is over.
        for (int i = 0; i < got; i++) {
            Slot& slot = slots_[static_cast<size_t>(events[i].data)];
            slot.in_flight = false;
            in_flight_--;
            aio_ended();
            const uint64_t took_us = now_us - slot.submitted_us;
            slot.operation->result.kernel_us += took_us;
            // It came back at some moment since the last look, while the lane made other seats' calls. Where
            // that is most of its time, the time says something about them and nothing about this transfer:
            // as a latency it would make the breaker patient with a mount that hangs.
            const uint64_t unknown_us = back_us - std::max(looked_us, slot.submitted_us);
            if (came_meanwhile && 4 * unknown_us > took_us) slot.operation->result.kernel_us_known = false;
            slot.context.word().leave();
        }
        for (int i = 0; i < got; i++) {
            const auto seat = static_cast<unsigned>(events[i].data);
            Slot& slot = slots_[seat];
            advance(seat, [&] { return slot.work->resume(slot.context, events[i].res); });
        }
    }

    Lane& lane_;
    AioCalls& calls_;
    aio_context_t context_ = 0;
    RootCache roots_;
    std::deque<Slot> slots_;  // a deque: slots do not move, the kernel knows their addresses
    unsigned in_flight_ = 0;
    uint64_t looked_us_ = 0;  // when the last wait ended: what is in flight since before it was not back then
};

}  // namespace

bool run_aio_engine(Lane& lane) {
    AioEngine engine(lane, aio_calls());
    if (const int error = engine.get_context(); error != 0) {
        lane.fall_back(aio_refusal(error));
        return false;
    }
    const std::string no_keeper = keep_address_space();
    if (!no_keeper.empty()) lane.notice(no_keeper);
    engine.run();
    return true;
}

}  // namespace kvlane
