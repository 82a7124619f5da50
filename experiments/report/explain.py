"""What the measures mean, as the report tells it."""

HOW_TO_READ = """\
`acc[i, j]` is the accuracy on task j after learning task i, counted from 1 to T; `b[j]` that of the untrained model.

| measure | formula | how to read it |
| :-- | :-- | :-- |
| ACC | mean over j of `acc[T, j]` | what is known at the end; higher is better |
| learning accuracy | mean over j of `acc[j, j]` | how well each task was learnt at its turn: plasticity |
| BWT, backward transfer | mean over j < T of `acc[T, j] - acc[j, j]` | below 0: later tasks \
cost old ones; above 0: they helped |
| FWT, forward transfer | mean over j > 1 of `acc[j-1, j] - b[j]` | above 0: earlier tasks help one not yet learnt; \
near 0 with a fresh head per task |
| forgetting | mean over j < T of (max over i < T of `acc[i, j]`) `- acc[T, j]` | drop from the best \
ever had; 0 is none |
| retention | mean over j of `acc[T, j] / acc[j, j]` | share of each task's accuracy that is left; 100 is all |
| average incremental accuracy | mean over i of mean over j ≤ i of `acc[i, j]` | the mean height of the curve above |

ACC, BWT and FWT after Lopez-Paz and Ranzato (2017), forgetting after Chaudhry et al. (2018), average incremental \
accuracy after Rebuffi et al. (2017). A measure whose entries were not all evaluated is undefined, not guessed: \
joint training has only a last row. Forgetting of 0 says nothing about how well tasks were learnt: read it beside the \
learning accuracy, and the learning accuracy beside that of separate LoRAs, the upper bound, and of the frozen base \
with a linear head, the least that an adapter must beat."""
