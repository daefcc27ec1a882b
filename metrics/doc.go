// Package metrics measures how a layer of experts was used.
//
// This part holds the figures of load, their sampling floor and their intervals. A load is the number of assignments n_e
// of each of E experts in some scope: a batch, a sequence, a device, a whole evaluation. The relative load is
//
//	r_e = n_e / (Σ n / E),
//
// so that 1 is perfect balance. Routing that favours no expert still has unequal loads, because T tokens are a finite
// sample: what it would show is the sampling floor, and only the excess over it is imbalance.
//
// [Choices] holds who chose whom, and from it batches of any size, overflow, what token ids explain, and which experts
// are chosen together. [Balances] lists the balance numbers of other frameworks.
//
// Every figure of one seed has the same bits on every platform: sums run in a fixed order, products are rounded before
// they are added, and logarithms are our own. Floors and the ends of intervals are rounded to six significant digits.
package metrics
