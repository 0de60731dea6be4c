;; Imports a function of no package, as a hand-made component may.
;;
;; Must come of it: refused at load, naming the import.
(component
  (import "exec" (func (param "command" string))))
