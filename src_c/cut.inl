/* The cut of a body in two loops.
 *
 * A body whose chain of dependent operations is too long for the CPU to look past is cut, at its exponential or table: one
 * loop over some vectors leaves the halfway state in arrays, the next takes it up (MAP_KERNEL). Both are the same body with
 * another constant `part`: what a loop does not need of it is dead code. NULL stands for a whole body. */
typedef struct {
  enum { CUT_FIRST_HALF, CUT_SECOND_HALF } part;
  vec *state[3];
  vmask *far; /* lanes that the halves are not for (MATH_RETURN_BY_RANGE): the first adds to them */
} math_cut;

FA_INLINE int cut_begins(const math_cut *cut) { return !cut || cut->part == CUT_FIRST_HALF; }
/* The cut: the state is left, or taken up. c may be NULL. */
FA_INLINE void cut_halfway(const math_cut *cut, vec *a, vec *b, vec *c) {
  if (cut && cut->part == CUT_FIRST_HALF) {
    *cut->state[0] = *a, *cut->state[1] = *b;
    if (c) *cut->state[2] = *c;
  }
  if (cut && cut->part == CUT_SECOND_HALF) {
    *a = *cut->state[0], *b = *cut->state[1];
    if (c) *c = *cut->state[2];
  }
}
