"""The text blocks of the exported script of a run that trained on pairs or unpaired responses.

TRL's own trainer gets the run's tokens from a collator in the script, so that templates and truncation cannot differ.
"""

BATCHES = """# %% Batches of the run's tokens, in the form that TRL's trainer takes
def padded(rows, value):
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


def texts(ids, labels, prefix="", mask="completion_mask"):
    marked = padded(labels, -100)
    return {
        f"{prefix}input_ids": padded(ids, tokenizer.pad_token_id),
        f"{prefix}attention_mask": padded([[1] * len(row) for row in ids], 0),
        f"{prefix}{mask}": marked if mask == "labels" else (marked != -100).long(),
    }


"""

PAIRS = '''def collate(rows):
    """n pairs as 2n texts, the chosen ones first."""
    ids = [row[name] for name in ("input_ids", "rejected_ids") for row in rows]
    labels = [row[name] for name in ("labels", "rejected_labels") for row in rows]
    return texts(ids, labels)


class OnTokens({trainer}):
    def _prepare_dataset(self, dataset, *_):
        return dataset


'''

SIDES = '''def collate(rows):
    """The chosen and the rejected texts of some pairs."""
    chosen = texts([row["input_ids"] for row in rows], [row["labels"] for row in rows], "chosen_", "labels")
    rejected_ids, rejected_labels = ([row[name] for row in rows] for name in ("rejected_ids", "rejected_labels"))
    return chosen | texts(rejected_ids, rejected_labels, "rejected_", "labels")


class OnTokens({trainer}):
    def tokenize_row(self, row, *_):
        return row


'''

HEAD = """# %% The head, drawn as the run drew it
model.config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
with torch.no_grad():
    spread = getattr(model.config, "initializer_range", 0.02)
    first = torch.empty(model.score.weight.shape).normal_(0.0, spread, generator=torch.Generator().manual_seed(SEED))
    model.score.weight.copy_(first)

"""

SCORED = '''def collate(rows):
    """n pairs as 2n texts, the chosen ones first."""
    ids = [row[name] for name in ("input_ids", "rejected_ids") for row in rows]
    return {{
        "input_ids": padded(ids, model.config.pad_token_id),
        "attention_mask": padded([[1] * len(row) for row in ids], 0),
    }}


class OnTokens({trainer}):
    def _prepare_dataset(self, dataset, *_):
        return dataset


'''

LABELED = '''def collate(rows):
    """Some texts and the ids of their labels."""
    ids = [row["input_ids"] for row in rows]
    return {{
        "input_ids": padded(ids, model.config.pad_token_id),
        "attention_mask": padded([[1] * len(row) for row in ids], 0),
        "labels": torch.tensor([row["label"] for row in rows]),
    }}


class OnTokens({trainer}):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        # Each record of a step counts the same, as in the run; the model's own loss is a micro-batch's mean.
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        logits = outputs.logits.float()
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum"{smoothing}) / num_items_in_batch
        return (loss, outputs) if return_outputs else loss


'''

UNPAIRED = '''def exchanged(rows):
    """Each prompt with the response of the record before it."""
    for place, prompt in enumerate(rows):
        response = rows[place - 1]
        end, start = (next(at for at, label in enumerate(row["labels"]) if label != -100) for row in (prompt, response))
        yield (
            [*prompt["input_ids"][:end], *response["input_ids"][start:]][:MAX_LENGTH],
            [*prompt["labels"][:end], *response["labels"][start:]][:MAX_LENGTH],
        )


def collate(rows):
    """Some responses, the exchanged ones that estimate the divergence from the reference, and the labels."""
    batch = texts([row["input_ids"] for row in rows], [row["labels"] for row in rows])
    batch |= texts(*zip(*exchanged(rows), strict=True), prefix="KL_")
    return batch | {{"label": torch.tensor([bool(row["good"]) for row in rows])}}


class OnTokens({trainer}):
    def _prepare_dataset(self, dataset, *_):
        return dataset


'''

TRAIN = """# %% Train
torch.manual_seed(SEED)
{attach}trainer = OnTokens(
    model=model,
    args={config}(
        output_dir=str(HERE / "checkpoints"),
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        **OBJECTIVE,
        **TRAINING,
    ),
    data_collator=collate,
    train_dataset=records,
    processing_class=tokenizer,
    callbacks=[AsTheRun()],
{peft_config})
model = trainer.model
cast_adapter(model)
trainer.train()

# %% Save the adapter

if KEEP_STEP is None:
    model.save_pretrained(HERE / "adapter", selected_adapters=["default"])
tokenizer.chat_template = (HERE / "chat_template.jinja").read_text(encoding="utf-8")
tokenizer.save_pretrained(HERE / "adapter")
losses = {{entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}}
(HERE / "losses.json").write_text(json.dumps(losses, indent=1) + "\\n", encoding="utf-8")
print(f"Last loss {{losses[max(losses)]}}; the run's was {{LAST_LOSS_OF_THE_RUN}}.")
"""

ATTACH = """model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **ADAPTER))
cast_adapter(model)
"""

PEFT_CONFIG = """    # TRL attaches the adapter itself: the reference is then the model without it.
    peft_config=LoraConfig(task_type="CAUSAL_LM", **ADAPTER),
"""
