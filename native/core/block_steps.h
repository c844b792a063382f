// block_steps.h — what the machines of all kinds share: how an operation ends, and how errors are named.
#pragma once

#include <cerrno>
#include <memory>
#include <string>
#include <utility>

#include "block_work.h"
#include "lane_context.h"

namespace kvlane {

class Steps : public BlockWork {
  public:
    explicit Steps(std::shared_ptr<Operation> operation) : kept_(std::move(operation)), op_(*kept_) {}
    std::optional<Transfer> resume(LaneContext&, int64_t) override { return std::nullopt; }

  protected:
    // Fixes the result. Clean-up comes after it and changes nothing any more. `error`: negative errno, -call_refused, or 0.
    std::nullopt_t end(Status status, int64_t error, Phase phase, std::string text = {});
    // By the error alone: no room, refused, or an input/output error.
    std::nullopt_t fail(int64_t error, Phase phase, std::string text = {});
    std::nullopt_t done(Phase phase) { return end(Status::ok, 0, phase); }
    void close(LaneContext& lane, int& fd);

  private:
    const std::shared_ptr<Operation> kept_;

  protected:
    Operation& op_;
};

std::unique_ptr<BlockWork> make_load(std::shared_ptr<Operation> operation);
std::unique_ptr<BlockWork> make_store(std::shared_ptr<Operation> operation);
std::unique_ptr<BlockWork> make_lookup(std::shared_ptr<Operation> operation);
std::unique_ptr<BlockWork> make_remove(std::shared_ptr<Operation> operation);
std::unique_ptr<BlockWork> make_aside(std::shared_ptr<Operation> operation);
std::unique_ptr<BlockWork> make_identify(std::shared_ptr<Operation> operation);
std::unique_ptr<BlockWork> make_name_space(std::shared_ptr<Operation> operation);
std::unique_ptr<BlockWork> make_tidy(std::shared_ptr<Operation> operation);
std::unique_ptr<BlockWork> make_probe(std::shared_ptr<Operation> operation);
std::unique_ptr<BlockWork> make_list(std::shared_ptr<Operation> operation);
std::unique_ptr<BlockWork> make_verify(std::shared_ptr<Operation> operation);
std::unique_ptr<BlockWork> make_remove_file(std::shared_ptr<Operation> operation);
std::unique_ptr<BlockWork> make_touch(std::shared_ptr<Operation> operation);
std::unique_ptr<BlockWork> make_lease(std::shared_ptr<Operation> operation);

// header, payload, zero padding: the parts of one block file in one transfer. The last partial page
// goes through `tail`, so that no byte outside of [memory, memory + bytes) is read or written.
void block_parts(Transfer& transfer, void* header, std::byte* memory, uint64_t bytes, std::byte* tail);
// The same transfer without its first `bytes`, which are done.
void skip_done(Transfer& transfer, uint64_t bytes);

// The operation's block, open for reading: without O_DIRECT and O_NOATIME where they are not to be had, which its root knows from then on.
int open_block(LaneContext& lane, Operation& operation, Root& root, bool& direct);
// The file system says so in its attributes, if not when the file is opened.
bool takes_no_direct(const FileStat& found);
// Of a file that was opened: NFS says ESTALE, GlusterFS ENOENT.
inline bool is_gone(int64_t error) { return error == -ESTALE || error == -ENOENT; }

// Opens a directory below the root, component by component made if it is not there. O_PATH.
int open_directory(LaneContext& lane, Operation& operation, int root, const std::string& path, bool make, uint32_t mode, Phase& phase);
uint32_t directory_mode(uint32_t file_mode);

uint64_t unix_us();

}  // namespace kvlane
